// Walks circular doubly linked lists (struct list_head) of a kernel that may be running.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/paging/address_space.h"
#include "core/gather/plan.h"

namespace vmi {

// struct list_head.
struct ListLink {
  uint64_t next = 0;
  uint64_t prev = 0;
};

// What a walk found; FillRows turns it into rows.
struct ListWalk {
  // Base of every row, in list order.
  std::vector<uint64_t> bases;
  // Columns as they were when the nodes were followed. Empty for mapped memory, where reading them
  // later costs nothing.
  struct Captured {
    // Those of nodes that were read ahead, none of depth 0 faulty: in the walk's room if they fit,
    // else in `own`.
    RowBuffer room;
    std::vector<uint8_t> own;
    size_t ahead_count = 0;
    const uint8_t* ahead() const { return room.bytes != nullptr ? room.bytes : own.data(); }
    size_t ahead_capacity() const { return room.bytes != nullptr ? room.capacity : ahead_count; }
    // Of each of them: whether columns of all depths are there, or of depth 0 alone.
    std::vector<uint8_t> is_deep;
    // Those of nodes that were read by themselves: for each its fault mask (u32) and its columns of
    // depth 0 one after the other.
    std::vector<uint8_t> single;
    // Of each row: its number in `ahead`, or `ahead_count` and its number in `single`.
    std::vector<uint32_t> numbers;
  } captured;
  // Mapped memory: how many rows, from the first on, were gathered into `room` while their pages
  // were in the CPU's TLB.
  size_t gathered = 0;
  const uint8_t* room = nullptr;
  // Rows that came from each head.
  std::vector<uint32_t> counts;
  // Times a list changed under the walk and was followed again.
  uint32_t retries = 0;
};

// kCorrupt beyond `max` nodes, or beyond what kMaxRowBytes hold. `room`: where FillRows is to put
// the rows if they fit.
Result<ListWalk> WalkLists(AddressSpace* space, const Plan& plan, const uint64_t* heads,
                           size_t head_count, uint64_t link, size_t max,
                           const RowBuffer& room = {});

// `rows`: with room for walk.bases.size() rows. Where it is the walk's own room, that is once: rows
// in there are moved.
Status FillRows(AddressSpace* space, const Plan& plan, const ListWalk& walk, const RowBuffer& rows);

// Leaves the memory of a walk that is done with to the next one.
void Recycle(AddressSpace* space, ListWalk walk);

}  // namespace vmi
