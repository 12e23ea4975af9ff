// Looks an index up in a radix tree of a guest: nodes of 2^chunk slots, where every level takes
// `chunk` bits of the index.
#pragma once

#include <cstdint>

#include "core/paging/address_space.h"
#include "core/result.h"

namespace vmi {

// How the guest's kernel lays its trees out.
struct RadixTree {
  // A slot holds a node when its bits under `tag_mask` are `tag` and it is above `max_internal`;
  // the node lies at the slot's value minus `tag`.
  uint64_t tag = 0;
  uint64_t tag_mask = 0;
  uint64_t max_internal = 0;
  // Of a node: its shift (one byte), and its slots.
  uint32_t shift_offset = 0;
  uint32_t slots_offset = 0;
  uint32_t chunk_shift = 0;
  uint32_t max_shift = 0;

  bool IsNode(uint64_t entry) const { return (entry & tag_mask) == tag && entry > max_internal; }
};

// The entry at `index` of the tree whose root is the word at `head`: 0 where there is none, else
// whatever the walk ended with. kCorrupt for a top node without a shift, and for an entry above the
// lowest level that is neither a node nor tagged.
Result<uint64_t> LookUp(AddressSpace* space, const RadixTree& tree, uint64_t head, uint64_t index);

}  // namespace vmi
