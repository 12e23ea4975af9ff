// Exclusive use of libvmi among the threads of its process.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <mutex>

namespace host {

// A mutex that a thread which locks it again and again can be polite with: std::timed_mutex alone
// gives it back to whoever runs, which would always be that thread.
class EngineLock {
 public:
  void lock() {
    ++waiting_;
    mutex_.lock();
    --waiting_;
  }
  bool try_lock_for(std::chrono::milliseconds patience) {
    ++waiting_;
    const bool locked = mutex_.try_lock_for(patience);
    --waiting_;
    return locked;
  }
  void unlock() { mutex_.unlock(); }

  // The same as lock(), behind all others.
  void LockLast() {
    for (;;) {
      while (waiting_.load() > 0) sched_yield();
      mutex_.lock();
      if (waiting_.load() == 0) return;
      mutex_.unlock();
    }
  }

 private:
  std::timed_mutex mutex_;
  std::atomic<int> waiting_{0};
};

}  // namespace host
