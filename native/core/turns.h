// Whether two threads that read had better be in their system calls at once, or in turns.
//
// Each element of process_vm_readv takes the lock of that process's address space and a reference
// to the page. Where these lines move slowly between the cores, two threads at once take up to
// three times as long for each element, and both are sooner done if one takes its last batch apart
// while the other is in the kernel; where they do not, to wait would waste a core. Hosts differ,
// and so do a host's seconds: now and then a job is done the other way, and compared with its
// neighbours in time if they are as large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "core/physical_source.h"

namespace vmi {

class Turns {
 public:
  // One job of so many blocks: tells the source how to read, and measures. Those of few blocks are
  // done as the last one was.
  class Job {
   public:
    Job(Turns* turns, PhysicalSource* source, size_t blocks);
    ~Job();
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

   private:
    Turns* turns_;
    size_t blocks_;
    // Another thread's job is not waited for.
    std::unique_lock<std::mutex> lock_;
    bool in_turns_ = false;
    int64_t start_ = 0;
  };

  bool in_turns() const { return in_turns_; }
  // Whether the next job, of so many blocks, is to be done in turns.
  bool Next(size_t blocks);
  void Record(size_t blocks, bool in_turns, int64_t nanoseconds);

 private:
  static constexpr size_t kFew = 4;
  static constexpr uint32_t kPeriod = 16;

  std::mutex busy_;
  bool in_turns_ = false;
  uint32_t jobs_ = 0;
  // The last job.
  size_t last_blocks_ = 0;
  bool last_in_turns_ = false;
  int64_t last_nanoseconds_ = 0;
  // What a job takes in turns to what it takes at once, smoothed; 0: not known yet.
  double ratio_ = 0;
};

}  // namespace vmi
