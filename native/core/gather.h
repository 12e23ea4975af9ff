// Fills rows: what a Plan names, at every row's base.
#pragma once

#include <cstddef>
#include <cstdint>

#include "address_space.h"
#include "plan.h"

namespace vmi {

// `rows` is laid out as RowLayout(plan, count) and holds the bases; columns of depth `first_depth` and
// more are filled, and their fault bits set. Masks and shallower columns are taken as they are.
void GatherColumns(AddressSpace* space, const Plan& plan, size_t count, uint8_t* rows, int first_depth);

// Writes bases and clears masks, then gathers everything. `rows` may lie over `bases`.
Status Gather(AddressSpace* space, const Plan& plan, const uint64_t* bases, size_t count, uint8_t* rows);

}  // namespace vmi
