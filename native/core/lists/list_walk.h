// One walk of some lists.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/gather/gatherer.h"
#include "core/lists/copied_nodes.h"
#include "core/lists/found_nodes.h"
#include "core/lists/list_link.h"
#include "core/lists/mapped_rows.h"
#include "core/result.h"

namespace vmi {

// A node counts as linked when its `prev` is the node it was reached from; the `next` to follow is
// the one read together with that `prev`. Where `prev` is another node, the list changed, is
// changing or is broken: the walk goes back to the last node that still is where it was, and on
// from there.
class ListWalk {
 public:
  // Exactly one of `mapped` and `copied` is there.
  ListWalk(AddressSpace* space, size_t max, FoundNodes* nodes, MappedRows* mapped,
           CopiedNodes* copied)
      : space_(*space), max_(max), nodes_(*nodes), mapped_(mapped), copied_(copied) {}

  // Follows each list; `nodes` has begun.
  Status Run(const std::vector<uint64_t>& heads);

  // Times a list changed under the walk and was followed again.
  uint32_t retries() const { return retries_; }

 private:
  enum class Trouble { kBackPointer, kUnreadable, kWild };

  Status WalkOne(uint64_t head, const ListLink& ahead);
  Status Start();
  void StartAt(const ListLink& head);
  bool Closes();
  Status RunMapped();
  void RunCopied();
  Status Step();
  bool IsHalfDone(uint64_t next_prev) const;
  Status Visit(uint64_t node, uint64_t next, uint32_t row);
  Status Accept(uint64_t node, uint64_t next, uint32_t row);
  Status Recover(Trouble trouble);
  Status StepBack();
  Status GiveUp(Trouble trouble) const;
  Status CountRetry();
  void Pause();
  void DropLast();
  bool ReadLink(uint64_t node, ListLink* link);
  Error Corrupt(uint64_t address, std::string message) const;
  Error Broken(uint64_t address, const std::string& what) const;

  AddressSpace& space_;
  size_t max_;
  FoundNodes& nodes_;
  MappedRows* mapped_;
  CopiedNodes* copied_;
  uint32_t retries_ = 0;
  int64_t paused_ = 0;

  // The list that is being followed.
  uint64_t head_ = 0;
  uint64_t head_prev_ = 0;
  // The last node that was linked, and its successor.
  uint64_t at_ = 0;
  uint64_t next_ = 0;
  // What the last node that was not linked had as its `prev`.
  uint64_t found_prev_ = 0;
  // Times the walk has looked at this place again, and started this list again.
  int attempts_ = 0;
  int restarts_ = 0;
};

// Whether a list of the kernel can have a node there.
inline bool IsPlausibleNode(const AddressSpace& space, uint64_t node) {
  return node >> 63 != 0 && (node & 7) == 0 && space.IsCanonical(node);
}

}  // namespace vmi
