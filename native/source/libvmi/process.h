// A process for libvmi, as this side of it sees it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/result.h"
#include "source/libvmi/lease.h"

namespace libvmi {

// A child that runs native/host/libvmi_host.cpp. Its standard output and error go to a pipe that
// never makes it wait; what does not fit is lost. It has a session of its own, so that what a
// terminal sends to this process does not end it, none of this process's signal settings and none
// of its descriptors. It ends when its socket is closed, by whatever ends this process.
// (PR_SET_PDEATHSIG would be no help: it looks at the thread that started the child, and kills
// without resuming the guest.)
class HostProcess {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // kUnsupported when the program is not where the addon is, kAttach when there is no process to be
  // had.
  static vmi::Result<std::unique_ptr<HostProcess>> Start(const std::string& title);
  // Kills it.
  ~HostProcess();
  HostProcess(const HostProcess&) = delete;
  HostProcess& operator=(const HostProcess&) = delete;

  enum class Io {
    kDone,
    kLate,
    // It closed its socket, or wrote what is no frame.
    kGone,
  };
  // One frame.
  Io Send(const std::string& frame, TimePoint until);
  Io Receive(std::string* frame, TimePoint until);
  // wire::kSharedSize bytes.
  uint8_t* shared() const { return shared_; }
  // What it holds of Xen.
  const Lease& lease() const;

  // What it printed since the last time; at most kMaxOutput bytes.
  std::string TakeOutput();
  static constexpr size_t kMaxOutput = 4096;

  struct End {
    // "SIGSEGV"; empty when it exited by itself.
    std::string signal;
    int exit_status = 0;
  };
  // Waits for its end for a moment, then kills it.
  End Finish(std::chrono::milliseconds patience);

 private:
  HostProcess() = default;
  void SetTimeout(int option, TimePoint until, int64_t* current);
  Io ReceiveSome(char* into, size_t room, TimePoint until, size_t* done);
  bool WaitFor(std::chrono::milliseconds patience);

  pid_t pid_ = -1;
  // -1 where the kernel has none.
  int pidfd_ = -1;
  int socket_ = -1;
  int output_ = -1;
  uint8_t* shared_ = nullptr;
  int64_t receive_timeout_ = -1;
  int64_t send_timeout_ = -1;
  int wait_status_ = 0;
};

}  // namespace libvmi
