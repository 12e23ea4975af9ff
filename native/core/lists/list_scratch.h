// What a list walk needs for itself, kept for the next one: memory that is new from the host costs
// a page fault each 4 KiB, as much as some ten nodes.
#pragma once

#include <cstddef>
#include <cstdint>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/helper_thread.h"
#include "core/physical_source.h"

namespace vmi {

// Addresses that were seen, with a number each. Open addressing; grows.
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

  // Forgets everything, and keeps the room for as much again.
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

  uint32_t Get(uint64_t address) const {
    if (slots_.empty()) return kAbsent;
    const Slot& slot = const_cast<AddressMap*>(this)->Find(address);
    return slot.address == 0 ? kAbsent : slot.number;
  }

 private:
  // Kernel addresses are never 0.
  struct Slot {
    uint64_t address = 0;
    uint32_t number = kAbsent;
  };

  Slot& Find(uint64_t address) {
    // Nodes lie at multiples of the slab's object size: multiply, take the high bits.
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

struct ListScratch {
  AddressMap seen;
  std::vector<uint64_t> nodes;
  // ListWalk::Captured::own, and ListWalk::bases.
  std::vector<uint8_t> ahead;
  std::vector<uint64_t> bases;
  // What one thread reads nodes into.
  struct Lane {
    std::vector<ReadRequest> requests;
    // Of each node of a block: its first request; one more at the end.
    std::vector<size_t> first;
    std::vector<const uint8_t*> nodes;
    std::vector<uint8_t> buffer;
  };
  std::array<Lane, HelperThread::kThreads> lanes;

  void Clear() {
    constexpr size_t kMaxKept = size_t{1} << 16;
    seen.Clear();
    if (nodes.capacity() > kMaxKept) nodes = {};
    nodes.clear();
  }
};

}  // namespace vmi
