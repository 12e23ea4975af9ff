// Fills rows: what a Plan names, at every row's base.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/paging/address_space.h"
#include "core/gather/plan.h"

namespace vmi {

// Fills rows [first, end), whose bases are there: columns of depth `first_depth` and more, and
// their fault bits. Masks and shallower columns are taken as they are.
void GatherColumns(AddressSpace* space, const Plan& plan, const RowBuffer& rows, size_t first,
                   size_t end, int first_depth);

// The same from memory that is read, on a thread that is not the owner's: without a page table.
// Appends to lane->left the numbers of rows that it takes one to fill; of those nothing can be
// said.
void GatherBlock(AddressSpace* space, const Plan& plan, const RowBuffer& rows, size_t first,
                 size_t end, int first_depth, GatherScratch::Lane* lane);

// Writes bases and clears masks, then gathers everything for rows [first, first + count). `rows`
// may lie over `bases`.
Status Gather(AddressSpace* space, const Plan& plan, const uint64_t* bases, size_t count,
              const RowBuffer& rows, size_t first);

// The same, each base `link` before a node. `rows` does not lie over `nodes`.
Status GatherNodes(AddressSpace* space, const Plan& plan, const uint64_t* nodes, size_t count,
                   uint64_t link, const RowBuffer& rows, size_t first);

// The same for a buffer of `count` rows.
inline Status Gather(AddressSpace* space, const Plan& plan, const uint64_t* bases, size_t count,
                     uint8_t* rows) {
  return Gather(space, plan, bases, count, {rows, count}, 0);
}

}  // namespace vmi
