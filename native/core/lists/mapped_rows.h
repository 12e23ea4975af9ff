// Nodes of lists in mapped memory, followed many at a time, and their rows.
//
// A list is a chain of cache misses. The nodes of the last walk are prefetched some steps ahead: a
// hint only, since every link is followed as it is now.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/gather/gatherer.h"
#include "core/gather/plan.h"
#include "core/lists/found_nodes.h"

namespace vmi {

class MappedRows {
 public:
  // Nodes that are followed at once.
  static constexpr size_t kBlock = 256;

  MappedRows(Gatherer* gatherer, const Plan& plan, uint64_t link)
      : gatherer_(gatherer), plan_(plan), link_(link) {}

  // Starts a walk whose rows go to `into` if they fit.
  void Begin(const RowBuffer& into) {
    into_ = into;
    gathered_ = 0;
    gathers_ = into.bytes != nullptr;
  }

  // Up to kBlock nodes from `*next` on that point back at the node before them, the first one at
  // `at`. `*next` becomes the successor of the last. Returns how many; none where the page of one
  // could not be loaded.
  size_t Follow(const FoundNodes& nodes, uint64_t head, uint64_t at, uint64_t* next,
                uint64_t* block);

  // Fills the rows of the nodes that came since the last time, if they are many: the walk has just
  // brought their pages into the TLB.
  void GatherNew(const FoundNodes& nodes);
  // Nodes were taken back: `size` of them are there now.
  void Truncate(size_t size) {
    if (size < gathered_) MoveFrom(size);
  }
  // A node was taken out between others: rows from `number` on will move when the walk ends, so
  // that they are filled then.
  void MoveFrom(size_t number) {
    if (number < gathered_) gathered_ = 0;
    gathers_ = false;
  }

  // Fills what is not there yet of the rows of nodes that a walk has found.
  Status Fill(const std::vector<uint64_t>& nodes, const RowBuffer& to);

 private:
  Gatherer* gatherer_;
  const Plan& plan_;
  uint64_t link_;
  RowBuffer into_;
  // How many rows, from the first on, are in `into_`.
  size_t gathered_ = 0;
  bool gathers_ = false;
};

}  // namespace vmi
