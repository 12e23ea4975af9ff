// Nodes of lists in copied memory, each with its links and its row, as they were read.
//
// A node costs a read of its own, which brings what the row has at the node itself. The nodes of
// the last walk are read ahead in a few batches, with all that hangs on them. They are a guess:
// links are followed in what that brought, each node is used once, and only where its back pointer
// fits. The heads are read in one batch, too, after those: each is used for the first start of its
// list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/gather/copied.h"
#include "core/gather/gatherer.h"
#include "core/gather/plan.h"
#include "core/gather/rows.h"
#include "core/lists/address_map.h"
#include "core/lists/list_link.h"

namespace vmi {

class CopiedNodes {
 public:
  // A row's base is `link` bytes before its node. `plan` has fewer than Plan::kMaxColumns columns.
  CopiedNodes(Gatherer* gatherer, const Plan& plan, uint64_t link)
      : gatherer_(gatherer),
        plan_(plan),
        plan_with_link_(plan.With(static_cast<int32_t>(link), sizeof(ListLink))),
        head_plan_(Plan().With(0, sizeof(ListLink))),
        link_(link) {}

  // Starts a walk and reads nodes ahead; they stay as they are. Rows are put into `into` where they
  // fit, so that those of a list that has not changed are where they belong.
  void Begin(const std::vector<uint64_t>& heads, const std::vector<uint64_t>* ahead,
             const RowBuffer& into);

  // The links of head number `list`, as Begin read them; zero where they could not be read.
  const ListLink& head(size_t list) const { return head_links_[list]; }

  // Takes nodes that were read ahead, from number `first` on and `max` at most, as long as each is
  // `*next` and points back at `*at`. Returns how many; `*at` is the last, `*next` its successor.
  size_t TakeRun(size_t first, size_t max, uint64_t* at, uint64_t* next);
  // Takes one that points back at `at`. `*row` is its row.
  bool TakeAhead(uint64_t node, uint64_t at, uint64_t* next, uint32_t* row);

  // Reads a node by itself, links and row. false: its links cannot be read.
  bool Read(uint64_t node, ListLink* link);
  // Keeps the row of the node that was read last. Returns its number.
  uint32_t Keep() { return static_cast<uint32_t>(used_++); }
  // The row of a node that is not found any more.
  void Drop(uint32_t row) {
    if (row + 1 == used_ && row >= ahead_count_) --used_;
  }

  // Brings rows into the order of `rows` and fills what they lack. Afterwards `rows` is 0, 1, …
  // where they were in `to` before.
  void Fill(std::vector<uint32_t>* rows, const RowBuffer& to);

  // Frees what is more than a usual walk takes.
  void Trim();

 private:
  // Rows that follow each other in both orders.
  struct Run {
    size_t to;
    size_t from;
    size_t count;
  };

  void ReadAhead(const RowBuffer& into);
  void ReadHeads(const std::vector<uint64_t>& heads);
  Rows RowsWithLinks();
  void ReserveRow(size_t row);
  void Move(size_t capacity, size_t row_count);
  void MoveRuns(const RowBuffer& from, const RowBuffer& to, const std::vector<Run>& runs) const;
  size_t FindAhead(uint64_t node);

  Gatherer* gatherer_;
  const Plan& plan_;
  // Its last column is the link, which is not part of the rows' buffer.
  Plan plan_with_link_;
  // The link alone.
  Plan head_plan_;
  uint64_t link_;

  // Rows as they were read: the caller's buffer, or own_. Those read ahead come first; of the
  // others only columns of depth 0 are there.
  RowBuffer rows_;
  std::vector<uint8_t> own_;
  // Of each row. One that is taken or cannot be read is zero, and fits nowhere.
  std::vector<ListLink> links_;
  size_t used_ = 0;

  std::vector<ListLink> head_links_;

  const std::vector<uint64_t>* ahead_ = nullptr;
  size_t ahead_count_ = 0;
  // The node that comes next if nothing changed.
  size_t cursor_ = 0;
  // Numbers of all nodes read ahead, once one was not where the cursor is.
  AddressMap by_node_;
  bool has_map_ = false;
};

}  // namespace vmi
