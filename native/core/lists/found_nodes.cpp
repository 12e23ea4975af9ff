#include "core/lists/found_nodes.h"

#include <cstring>

namespace vmi {

uint64_t FoundNodes::Begin(const uint64_t* heads, size_t head_count, bool keeps_rows) {
  constexpr size_t kMaxKept = size_t{1} << 16;
  if (nodes_.capacity() > kMaxKept) nodes_ = {};
  nodes_.clear();
  rows_.clear();
  starts_.clear();
  counts_.clear();
  seen_.Clear();
  live_ = 0;
  dropped_ = 0;
  keeps_rows_ = keeps_rows;
  const uint64_t first_head = head_count == 0 ? 0 : heads[0];
  if (first_head != last_head_) last_.clear();
  last_head_ = first_head;
  follows_last_ = head_count == 1 && !last_.empty();
  if (follows_last_) return 0;
  for (size_t i = 0; i < head_count; ++i) {
    if (seen_.Put(heads[i], kHead) != kAbsent) return heads[i];
  }
  return 0;
}

void FoundNodes::End() {
  starts_.push_back(nodes_.size());
  if (live_ == nodes_.size()) {
    for (size_t list = 0; list + 1 < starts_.size(); ++list)
      counts_.push_back(static_cast<uint32_t>(starts_[list + 1] - starts_[list]));
  } else {
    CloseHoles();
  }
  last_.swap(nodes_);
}

void FoundNodes::CloseHoles() {
  size_t kept = 0;
  for (size_t list = 0; list + 1 < starts_.size(); ++list) {
    const size_t before = kept;
    for (size_t i = starts_[list]; i < starts_[list + 1]; ++i) {
      if (nodes_[i] == 0) continue;
      if (keeps_rows_) rows_[kept] = rows_[i];
      nodes_[kept++] = nodes_[i];
    }
    counts_.push_back(static_cast<uint32_t>(kept - before));
  }
  nodes_.resize(kept);
  if (keeps_rows_) rows_.resize(kept);
}

bool FoundNodes::FollowLast(const uint64_t* nodes, size_t count) const {
  const size_t first = nodes_.size();
  return count > 0 && follows_last_ && first + count <= last_.size() &&
         std::memcmp(last_.data() + first, nodes, count * sizeof *nodes) == 0;
}

void FoundNodes::StopFollowing() {
  if (!follows_last_) return;
  follows_last_ = false;
  seen_.Put(last_head_, kHead);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i] != 0) seen_.Put(nodes_[i], static_cast<uint32_t>(i));
  }
}

uint32_t FoundNodes::Number(uint64_t node) {
  if (FollowLast(&node, 1)) return kAbsent;
  StopFollowing();
  return seen_.Get(node);
}

void FoundNodes::Add(uint64_t node, uint32_t row) {
  if (!FollowLast(&node, 1)) {
    StopFollowing();
    seen_.Put(node, static_cast<uint32_t>(nodes_.size()));
  }
  nodes_.push_back(node);
  if (keeps_rows_) rows_.push_back(row);
  ++live_;
}

void FoundNodes::AddRun(const uint64_t* nodes, size_t count) {
  nodes_.insert(nodes_.end(), nodes, nodes + count);
  live_ += count;
}

void FoundNodes::AddFromLast(size_t count, uint32_t first_row) {
  AddRun(last_.data() + nodes_.size(), count);
  for (size_t i = 0; i < count; ++i) rows_.push_back(first_row + static_cast<uint32_t>(i));
}

void FoundNodes::Remove(uint32_t number) {
  nodes_[number] = 0;
  --live_;
}

uint32_t FoundNodes::DropLast() {
  const uint32_t row = keeps_rows_ ? rows_.back() : 0;
  --live_;
  Pop();
  // The last entry of a list is always a node.
  while (nodes_.size() > starts_.back() && nodes_.back() == 0) Pop();
  return row;
}

void FoundNodes::Pop() {
  nodes_.pop_back();
  if (keeps_rows_) rows_.pop_back();
  ++dropped_;
}

uint64_t FoundNodes::Before(size_t end, uint64_t head) const {
  while (end > starts_.back()) {
    if (nodes_[--end] != 0) return nodes_[end];
  }
  return head;
}

}  // namespace vmi
