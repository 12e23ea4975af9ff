// Walks circular doubly linked lists (struct list_head) of a kernel that may be running, and
// gathers a row at what each node is part of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/gather/gatherer.h"
#include "core/gather/plan.h"
#include "core/lists/copied_nodes.h"
#include "core/lists/found_nodes.h"
#include "core/lists/mapped_rows.h"
#include "core/result.h"

namespace vmi {

// Keeps the nodes that the last walk found, for the next one to start from, and the memory that it
// needed. Not thread-safe.
class ListWalker {
 public:
  // Rows of `plan` lie `link` bytes before the nodes. kMisuse for a plan of Plan::kMaxColumns
  // columns: one more is the link. The address space lives longer than this does.
  static Result<std::unique_ptr<ListWalker>> Create(AddressSpace* space, const Plan& plan,
                                                    uint32_t link);
  ListWalker(const ListWalker&) = delete;
  ListWalker& operator=(const ListWalker&) = delete;

  const Plan& plan() const { return plan_; }

  // Follows the list from each head; heads give no row. kCorrupt beyond `max` nodes, or beyond what
  // kMaxRowBytes hold. `into`: where Fill is to put the rows, if they fit. Nothing else writes to
  // it between the two.
  Status Walk(const uint64_t* heads, size_t head_count, size_t max, const RowBuffer& into = {});

  // Of the last walk, if it went well: its nodes in order, how many came from each head, and how
  // often a list changed under it and was followed again.
  const std::vector<uint64_t>& nodes() const { return nodes_.last(); }
  const std::vector<uint32_t>& counts() const { return nodes_.counts(); }
  uint32_t retries() const { return retries_; }

  // Fills the rows of the last walk, which went well. `rows` has a capacity of nodes().size() or
  // more.
  Status Fill(const RowBuffer& rows);

  // Frees what is more than a usual walk takes, once its rows are filled.
  void Trim() { copied_.Trim(); }

 private:
  ListWalker(AddressSpace* space, const Plan& plan, uint32_t link)
      : space_(space),
        gatherer_(space),
        plan_(plan),
        mapped_(&gatherer_, plan_, link),
        copied_(&gatherer_, plan_, link) {}

  AddressSpace* space_;
  Gatherer gatherer_;
  Plan plan_;
  FoundNodes nodes_;
  MappedRows mapped_;
  CopiedNodes copied_;
  uint32_t retries_ = 0;
};

}  // namespace vmi
