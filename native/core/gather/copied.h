// Gathers from copied memory, where a read is a system call or more: many rows in one batch.
#pragma once

#include <climits>
#include <cstddef>

#include "core/gather/copied_scratch.h"
#include "core/gather/plan.h"
#include "core/gather/rows.h"
#include "core/paging/address_space.h"

namespace vmi {

// The first and the last depth of the columns that are filled.
struct Depths {
  int first = 0;
  int last = INT_MAX;
};

// Fills columns of rows [first, end), whose bases are there, and sets their fault bits. Masks and
// columns of other depths are taken as they are.
void GatherCopied(AddressSpace* space, const Plan& plan, const Rows& rows, size_t first, size_t end,
                  Depths depths, CopiedScratch* scratch);

// How many rows a thread takes at a time from memory that two threads read.
constexpr size_t kCopiedBlock = 128;

}  // namespace vmi
