// Looks things up in one address space: an index in a radix tree, then what hangs on its entry.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/gather/gatherer.h"
#include "core/lookup/radix_tree.h"
#include "core/lookup/read_paths.h"
#include "core/result.h"

namespace vmi {

// Not thread-safe.
class LookUps {
 public:
  explicit LookUps(Gatherer* gatherer) : gatherer_(gatherer), paths_(gatherer->space()) {}

  // As LookUp. What is found and gathered from here on counts as one look-up until End.
  Result<uint64_t> Find(const RadixTree& tree, uint64_t head, uint64_t index);

  // As Gatherer::Gather. Its reads are steps of the look-up that has begun, if one has.
  Status Gather(const Plan& plan, const uint64_t* bases, size_t count, const RowBuffer& rows);

  // Ends the look-up: an operation on the guest begins or its page table is flushed.
  void End() { paths_.End(); }

 private:
  Gatherer* gatherer_;
  ReadPaths paths_;
};

}  // namespace vmi
