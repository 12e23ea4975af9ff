// What makes libvmi's calls: this process, or a process of its own.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "source/libvmi/abi.h"
#include "source/libvmi/call.h"
#include "source/libvmi/config.h"
#include "source/libvmi/cr3_queue.h"

namespace libvmi {

using Duration = std::chrono::milliseconds;

// One guest.
struct Domain {
  Mode mode = Mode::kFile;
  // Domain name, or path of a file of raw memory.
  std::string name;
  // Attaches by a domain's number; the name is for people then.
  bool by_id = false;
  uint64_t id = 0;
  // Attaches with VMI_INIT_EVENTS.
  bool events = false;

  // "kvm:NAME", as targets are written.
  std::string Title() const;
};

// One run of bytes to read, by the address that libvmi knows it by.
struct Piece {
  uint64_t address = 0;
  uint8_t* into = nullptr;
  size_t length = 0;
  // Bytes read before the first that libvmi cannot read.
  size_t transferred = 0;
};

// One instance of libvmi. Every call needs exclusive use. What libvmi itself reports is in the
// results, as is that nothing is attached; an error means that there was no answer, or that libvmi
// refused with a reason.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const Facts& facts() const = 0;
  // Whether it ends a call that is past its deadline by itself.
  virtual bool bounded() const = 0;
  virtual bool attached() const = 0;
  // How long each call after this one may take; where it is bounded.
  virtual void SetDeadline(Duration) {}
  // What libvmi printed since the last time; where it is not caught by CaptureOutput.
  virtual std::string TakeLog() { return {}; }

  virtual vmi::Status Attach() = 0;
  // `fresh`: libvmi's caches of guest memory are emptied first.
  virtual vmi::Status Invoke(const Call& call, const std::vector<Value>& arguments, bool fresh,
                             Outcome* outcome) = 0;
  virtual vmi::Status InitOs(const Config& config, Os* os) = 0;
  // vmi_read_pa. `stale`: the page cache is emptied first.
  virtual vmi::Status Read(Piece* pieces, size_t count, bool stale) = 0;
  // Page, V2P, PID and symbol caches. kClosed when the guest has ended, as far as that can be told.
  virtual vmi::Status FlushCaches() = 0;

  // Writes to CR3, of all vCPUs; the latest `capacity` are kept until they are asked for.
  // kUnsupported where this libvmi or its driver cannot.
  virtual vmi::Status StartCr3Writes(size_t capacity) = 0;
  // Waits for at most `timeout`, and hands over what happened. After an error there is no more:
  // kClosed when the guest has ended.
  virtual vmi::Status Listen(Duration timeout, Cr3Writes* writes) = 0;
  virtual vmi::Status StopCr3Writes() = 0;

  // Ends events, resumes a guest that was paused here, vmi_destroy().
  virtual void End() = 0;
};

}  // namespace libvmi
