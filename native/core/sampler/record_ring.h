// A bounded ring between the sampler's thread and whoever takes records from it. Neither waits.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <vector>

#include "core/sampler/switch_record.h"

namespace vmi {

// One thread pushes, one takes.
class RecordRing {
 public:
  explicit RecordRing(size_t capacity) : records_(capacity) {}

  // false: it is full.
  bool Push(const SwitchRecord& record) {
    const size_t end = end_.load(std::memory_order_relaxed);
    if (end - begin_.load(std::memory_order_acquire) == records_.size()) return false;
    records_[end % records_.size()] = record;
    end_.store(end + 1, std::memory_order_release);
    return true;
  }

  // Moves at most `max` records, oldest first, to `into`, which has room for so many words.
  size_t Take(uint64_t* into, size_t max) {
    const size_t begin = begin_.load(std::memory_order_relaxed);
    const size_t count = std::min(max, end_.load(std::memory_order_acquire) - begin);
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(into + i * kRecordWords, &records_[(begin + i) % records_.size()],
                  sizeof(SwitchRecord));
    }
    begin_.store(begin + count, std::memory_order_release);
    return count;
  }

 private:
  std::vector<SwitchRecord> records_;
  std::atomic<size_t> begin_{0};
  std::atomic<size_t> end_{0};
};

}  // namespace vmi
