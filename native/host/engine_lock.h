// Exclusive use of libvmi among the threads of its process.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace host {

// A lock that a thread which takes it again and again can be polite with: a mutex would be given
// back to whoever runs, which would always be that thread.
class EngineLock {
 public:
  void lock() {
    std::unique_lock<std::mutex> guard(mutex_);
    ++waiting_;
    changed_.wait(guard, [this] { return !held_; });
    --waiting_;
    held_ = true;
  }
  bool try_lock_for(std::chrono::milliseconds patience) {
    std::unique_lock<std::mutex> guard(mutex_);
    ++waiting_;
    const bool free = changed_.wait_for(guard, patience, [this] { return !held_; });
    --waiting_;
    held_ = held_ || free;
    // Whoever stood back for this one may go on now that it has given up.
    if (!free) changed_.notify_all();
    return free;
  }
  void unlock() {
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      held_ = false;
    }
    changed_.notify_all();
  }

  // The same as lock(), behind all others.
  void LockLast() {
    std::unique_lock<std::mutex> guard(mutex_);
    changed_.wait(guard, [this] { return !held_ && waiting_ == 0; });
    held_ = true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int waiting_ = 0;
};

}  // namespace host
