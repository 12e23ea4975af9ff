// The nodes that a walk of some lists has found so far, beside those that the walk before it found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/lists/address_map.h"

namespace vmi {

class FoundNodes {
 public:
  static constexpr uint32_t kAbsent = AddressMap::kAbsent;
  static constexpr uint32_t kHead = UINT32_MAX - 1;

  // Starts a walk of the lists with these heads. `keeps_rows`: whether nodes come with numbers of
  // rows. Returns a head that two lists have, else 0.
  uint64_t Begin(const uint64_t* heads, size_t head_count, bool keeps_rows);
  // From here on nodes are those of the next list.
  void StartList() { starts_.push_back(nodes_.size()); }
  // Ends a walk that found all. Its nodes become those of the last walk, list after list, with
  // their rows.
  void End();

  // Nodes of the last walk of these lists that ended well.
  const std::vector<uint64_t>& last() const { return last_; }
  // How many of those came from each head, and the number of each one's row, after End.
  const std::vector<uint32_t>& counts() const { return counts_; }
  std::vector<uint32_t>* rows() { return &rows_; }

  // Nodes of the walk that goes on. A node that turned out to be elsewhere leaves a hole behind,
  // which counts in size() and not in live().
  size_t size() const { return nodes_.size(); }
  size_t live() const { return live_; }
  // Nodes that were taken back.
  size_t dropped() const { return dropped_; }
  const uint64_t* data() const { return nodes_.data(); }
  size_t list_size() const { return nodes_.size() - starts_.back(); }

  // The number that a node was found with in this walk, even if it was taken back; kHead, or
  // kAbsent.
  uint32_t Number(uint64_t node);
  // Whether that node is still the one with that number.
  bool Has(uint32_t number, uint64_t node) const {
    return number < nodes_.size() && nodes_[number] == node;
  }
  // Whether the last walk had these nodes at the place where this one is. Then none of them can be
  // one that this walk had before, and nothing need be remembered of them.
  bool FollowLast(const uint64_t* nodes, size_t count) const;
  // Whether FollowLast can be true.
  bool follows_last() const { return follows_last_; }

  void Add(uint64_t node, uint32_t row);
  // Nodes that FollowLast is true of.
  void AddRun(const uint64_t* nodes, size_t count);
  // The next `count` nodes of the last walk, whose rows follow each other from `first_row` on.
  void AddFromLast(size_t count, uint32_t first_row);
  // Node `number` is no longer where it was found.
  void Remove(uint32_t number);
  // Takes the last node of this list back; returns its row, if rows are kept.
  uint32_t DropLast();

  // The last node of this list, and the one before it; `head` where there is none.
  uint64_t Last(uint64_t head) const { return Before(nodes_.size(), head); }
  uint64_t BeforeLast(uint64_t head) const { return Before(nodes_.size() - 1, head); }

 private:
  uint64_t Before(size_t end, uint64_t head) const;
  void StopFollowing();
  void Pop();
  void CloseHoles();

  uint64_t last_head_ = 0;
  std::vector<uint64_t> last_;
  std::vector<uint32_t> counts_;

  // All lists, in order; 0: a hole.
  std::vector<uint64_t> nodes_;
  std::vector<uint32_t> rows_;
  bool keeps_rows_ = false;
  // Number of each list's first node.
  std::vector<size_t> starts_;
  size_t live_ = 0;
  size_t dropped_ = 0;
  // Numbers of nodes and heads, unless the walk has found the last walk's nodes so far.
  AddressMap seen_;
  bool follows_last_ = false;
};

}  // namespace vmi
