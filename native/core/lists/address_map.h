// A number for each address that was seen.
#pragma once

#include <cstddef>
#include <cstdint>

#include <algorithm>
#include <utility>
#include <vector>

namespace vmi {

// Open addressing. Its memory grows, and is kept when it is cleared: memory that is new from the
// host costs a page fault each 4 KiB, as much as some ten nodes of a list.
class AddressMap {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;

  // The number that `address` had, or kAbsent; either way it has `number` now.
  uint32_t Put(uint64_t address, uint32_t number) {
    if ((used_ + 1) * 2 > slots_.size()) Grow();
    Slot& slot = Find(address);
    if (slot.address == 0) {
      ++used_;
      slot = {address, number};
      return kAbsent;
    }
    return std::exchange(slot.number, number);
  }

  uint32_t Get(uint64_t address) const {
    if (slots_.empty()) return kAbsent;
    const Slot& slot = const_cast<AddressMap*>(this)->Find(address);
    return slot.address == 0 ? kAbsent : slot.number;
  }

  void Clear() {
    constexpr size_t kMaxKept = size_t{1} << 16;
    if (used_ == 0) return;
    if (slots_.size() > kMaxKept) {
      slots_ = {};
    } else {
      std::fill(slots_.begin(), slots_.end(), Slot());
    }
    used_ = 0;
  }

 private:
  // Kernel addresses are never 0.
  struct Slot {
    uint64_t address = 0;
    uint32_t number = kAbsent;
  };

  Slot& Find(uint64_t address) {
    // Nodes lie at multiples of the slab's object size, so the high bits of the product are taken.
    size_t i = static_cast<size_t>((address * 0x9e37'79b9'7f4a'7c15) >> 32) & (slots_.size() - 1);
    while (slots_[i].address != 0 && slots_[i].address != address)
      i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }

  void Grow() {
    std::vector<Slot> old(std::max<size_t>(1024, slots_.size() * 2));
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.address != 0) Find(slot.address) = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

}  // namespace vmi
