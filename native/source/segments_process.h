// RAM that is the anonymous memory of another process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <sys/types.h>

#include <atomic>

#include "core/result.h"

namespace vmi {

// A process held by a pidfd: its PID is not taken for another's after it exits.
class GuestProcess {
 public:
  static Result<std::unique_ptr<GuestProcess>> Open(pid_t pid);
  ~GuestProcess();
  GuestProcess(const GuestProcess&) = delete;
  GuestProcess& operator=(const GuestProcess&) = delete;

  // kClosed once the process has exited.
  Status CheckAlive();
  // The same, but of up to 100 us ago, which no exit and the news of it fit in: the look is a
  // system call, as much as all the rest of looking a PID up.
  Status CheckAliveLately();

  // One run of bytes to read.
  struct Piece {
    uint64_t address = 0;  // in the process
    uint8_t* into = nullptr;
    size_t length = 0;
    size_t transferred = 0;
  };
  // Reads every piece as far as it goes: one system call unless pieces fault or are more than
  // IOV_MAX.
  Status Read(Piece* pieces, size_t count);
  // Writes one run as far as it goes.
  Result<size_t> Write(uint64_t address, const uint8_t* from, size_t length);
  // kAttach where the process may not be read, or has no memory at `address`.
  Status TryRead(uint64_t address);

 private:
  GuestProcess() = default;
  Status Failed(int error);

  pid_t pid_ = -1;
  int pidfd_ = -1;
  // Nanoseconds of the monotonic clock when CheckAliveLately looked last.
  std::atomic<int64_t> looked_{0};
  // Milliseconds of the coarse clock when the process was last seen alive.
  std::atomic<int64_t> seen_alive_{0};
};

}  // namespace vmi
