// How long a thread has been ready to run while its host had no core for it.
#pragma once

#include <cstdint>

namespace vmi {

// Of the thread that makes it. Linux, Documentation/scheduler/sched-stats.rst: the second number of
// /proc/PID/task/TID/schedstat. A host without /proc, or without SCHED_INFO, does not say.
class RunDelay {
 public:
  static constexpr uint64_t kUnknown = UINT64_MAX;

  RunDelay();
  ~RunDelay();
  RunDelay(const RunDelay&) = delete;
  RunDelay& operator=(const RunDelay&) = delete;

  // Nanoseconds so far, or kUnknown. Some microseconds of system call.
  uint64_t Read() const;

 private:
  int fd_;
};

}  // namespace vmi
