#include "source/libvmi/cr3_queue.h"

#include <algorithm>

namespace libvmi {

void Cr3Queue::Reset(size_t capacity) {
  const std::lock_guard<std::mutex> lock(mutex_);
  writes_.clear();
  capacity_ = capacity;
  dropped_ = 0;
  dropped_before_ = 0;
}

void Cr3Queue::PushLocked(const Cr3Write& write) {
  if (writes_.size() == capacity_) {
    writes_.pop_front();
    ++dropped_;
  }
  writes_.push_back(write);
}

void Cr3Queue::Push(const Cr3Write& write) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    PushLocked(write);
  }
  wake_.notify_one();
}

void Cr3Queue::Add(const Cr3Writes& batch) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Cr3Write& write : batch.writes) PushLocked(write);
    dropped_before_ = std::max(dropped_before_, batch.dropped);
  }
  wake_.notify_one();
}

Cr3Writes Cr3Queue::Take(std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t wakes = wakes_;
  wake_.wait_for(lock, timeout, [&] { return !writes_.empty() || wakes_ != wakes; });
  Cr3Writes taken;
  taken.writes.assign(writes_.begin(), writes_.end());
  taken.dropped = dropped_ + dropped_before_;
  writes_.clear();
  return taken;
}

void Cr3Queue::WakeReaders() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++wakes_;
  }
  wake_.notify_all();
}

bool Cr3Queue::empty() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return writes_.empty();
}

uint64_t Cr3Queue::dropped() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return dropped_ + dropped_before_;
}

}  // namespace libvmi
