// Gathers from mapped memory: plain loads, no system call.
#pragma once

#include <cstddef>

#include "core/gather/plan.h"
#include "core/gather/rows.h"
#include "core/paging/address_space.h"

namespace vmi {

// Fills all columns of the first `count` rows, whose bases are there and whose masks are clear.
void GatherMapped(AddressSpace* space, const Plan& plan, const Rows& rows, size_t count);

}  // namespace vmi
