// Fills rows: what a Plan names, at every row's base.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/gather/copied_scratch.h"
#include "core/gather/plan.h"
#include "core/gather/row_layout.h"
#include "core/paging/address_space.h"

namespace vmi {

// Keeps the memory that it needs for the next gather. Not thread-safe.
class Gatherer {
 public:
  explicit Gatherer(AddressSpace* space) : space_(space) {}

  AddressSpace* space() const { return space_; }
  CopiedScratch* scratch() { return &scratch_; }

  // Fills rows [first, first + count), masks and all. `rows` may lie over `bases`.
  Status Gather(const Plan& plan, const uint64_t* bases, size_t count, const RowBuffer& rows,
                size_t first = 0);

  // The same, where each base lies `link` bytes before a node. `rows` does not lie over `nodes`.
  Status GatherNodes(const Plan& plan, const uint64_t* nodes, size_t count, uint64_t link,
                     const RowBuffer& rows, size_t first);

 private:
  void FillRows(const Plan& plan, const RowBuffer& rows, size_t first, size_t count);

  AddressSpace* space_;
  CopiedScratch scratch_;
};

}  // namespace vmi
