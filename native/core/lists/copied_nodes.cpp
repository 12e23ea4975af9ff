#include "core/lists/copied_nodes.h"

#include <cstring>

#include <algorithm>
#include <numeric>

namespace vmi {

namespace {

// A longer list is read ahead up to here: its other nodes are read one by one.
constexpr size_t kMaxAhead = size_t{1} << 18;

}  // namespace

void CopiedNodes::Begin(const std::vector<uint64_t>& heads, const std::vector<uint64_t>* ahead,
                        const RowBuffer& into) {
  ahead_ = ahead;
  ReadAhead(into);
  ReadHeads(heads);
}

void CopiedNodes::ReadHeads(const std::vector<uint64_t>& heads) {
  const size_t count = heads.size();
  head_links_.assign(count, ListLink());
  if (count == 0) return;
  std::vector<uint8_t> bytes(RowLayout(head_plan_, count).total);
  Rows rows(head_plan_, {bytes.data(), count}, 0);
  rows.columns[0] = reinterpret_cast<uint8_t*>(head_links_.data());
  std::memcpy(rows.bases, heads.data(), count * sizeof(uint64_t));
  GatherCopied(gatherer_->space(), head_plan_, rows, 0, count, {}, gatherer_->scratch());
}

void CopiedNodes::ReadAhead(const RowBuffer& into) {
  ahead_count_ = std::min(ahead_->size(), kMaxAhead);
  used_ = ahead_count_;
  cursor_ = 0;
  has_map_ = false;
  by_node_.Clear();
  rows_ = into;
  if (into.bytes == nullptr || into.capacity < ahead_count_) {
    const size_t capacity = ahead_count_ + ahead_count_ / 16 + 16;
    own_.resize(std::max<size_t>(own_.size(), RowLayout(plan_, capacity).total));
    rows_ = {own_.data(), capacity};
  }
  links_.assign(rows_.capacity, ListLink());
  if (ahead_count_ == 0) return;
  const Rows rows = RowsWithLinks();
  std::memset(rows.masks, 0, ahead_count_ * sizeof(uint32_t));
  for (size_t i = 0; i < ahead_count_; ++i) {
    const uint64_t base = (*ahead_)[i] - link_;
    std::memcpy(rows.bases + i * sizeof base, &base, sizeof base);
  }
  GatherCopied(gatherer_->space(), plan_with_link_, rows, 0, ahead_count_, {},
               gatherer_->scratch());
}

Rows CopiedNodes::RowsWithLinks() {
  Rows rows(plan_, rows_, 0);
  const size_t column = plan_.columns().size();
  rows.columns[column] = reinterpret_cast<uint8_t*>(links_.data());
  rows.sizes[column] = sizeof(ListLink);
  return rows;
}

size_t CopiedNodes::TakeRun(size_t first, size_t max, uint64_t* at, uint64_t* next) {
  if (first >= ahead_count_) return 0;
  const size_t end = first + std::min(max, ahead_count_ - first);
  size_t i = first;
  for (; i < end && (*ahead_)[i] == *next && links_[i].prev == *at; ++i) {
    *at = *next;
    *next = links_[i].next;
    links_[i] = {};
  }
  if (i != first) cursor_ = i;
  return i - first;
}

bool CopiedNodes::TakeAhead(uint64_t node, uint64_t at, uint64_t* next, uint32_t* row) {
  const size_t number = FindAhead(node);
  if (number == ahead_count_) return false;
  // The first look decides: what the guest says later is newer.
  const ListLink link = links_[number];
  links_[number] = {};
  if (link.prev != at) return false;
  cursor_ = number + 1;
  *next = link.next;
  *row = static_cast<uint32_t>(number);
  return true;
}

// Number of a node that was read ahead; ahead_count_ when it was not.
size_t CopiedNodes::FindAhead(uint64_t node) {
  // Some nodes of the list may be gone.
  constexpr size_t kGone = 4;
  const size_t end = std::min(ahead_count_, cursor_ + kGone);
  for (size_t i = cursor_; i < end; ++i) {
    if ((*ahead_)[i] == node) return i;
  }
  if (ahead_count_ == 0) return 0;
  if (!has_map_) {
    for (size_t i = 0; i < ahead_count_; ++i) by_node_.Put((*ahead_)[i], static_cast<uint32_t>(i));
    has_map_ = true;
  }
  const uint32_t number = by_node_.Get(node);
  return number == AddressMap::kAbsent ? ahead_count_ : number;
}

bool CopiedNodes::Read(uint64_t node, ListLink* link) {
  ReserveRow(used_);
  const Rows rows = RowsWithLinks();
  const uint64_t base = node - link_;
  std::memcpy(rows.bases + used_ * sizeof base, &base, sizeof base);
  rows.SetMask(used_, 0);
  GatherCopied(gatherer_->space(), plan_with_link_, rows, used_, used_ + 1, {0, 0},
               gatherer_->scratch());
  *link = links_[used_];
  return !rows.IsFaulty(used_, plan_.columns().size());
}

void CopiedNodes::ReserveRow(size_t row) {
  if (row < rows_.capacity) return;
  const RowBuffer from = rows_;
  const size_t capacity = row + row / 2 + 64;
  std::vector<uint8_t> bytes(RowLayout(plan_, capacity).total);
  rows_ = {bytes.data(), capacity};
  MoveRuns(from, rows_, {{0, 0, used_}});
  own_.swap(bytes);
  links_.resize(capacity);
}

void CopiedNodes::MoveRuns(const RowBuffer& from, const RowBuffer& to,
                           const std::vector<Run>& runs) const {
  const Rows source(plan_, from, 0);
  const Rows target(plan_, to, 0);
  const auto move = [&runs](const uint8_t* source_cells, uint8_t* target_cells, size_t size) {
    for (const Run& run : runs)
      std::memcpy(target_cells + run.to * size, source_cells + run.from * size, run.count * size);
  };
  move(source.masks, target.masks, sizeof(uint32_t));
  move(source.bases, target.bases, sizeof(uint64_t));
  for (size_t k = 0; k < plan_.columns().size(); ++k)
    move(source.columns[k], target.columns[k], source.sizes[k]);
}

void CopiedNodes::Fill(std::vector<uint32_t>* rows, const RowBuffer& to) {
  std::vector<Run> runs;
  for (size_t row = 0; row < rows->size(); ++row) {
    const uint32_t from = (*rows)[row];
    if (!runs.empty() && runs.back().from + runs.back().count == from &&
        (from >= ahead_count_) == (runs.back().from >= ahead_count_)) {
      ++runs.back().count;
    } else {
      runs.push_back({row, from, 1});
    }
  }
  const auto moves = [](const Run& run) { return run.to != run.from; };
  if (!(to == rows_)) {
    MoveRuns(rows_, to, runs);
  } else if (std::any_of(runs.begin(), runs.end(), moves)) {
    // Rows that move may lie over each other.
    own_.assign(rows_.bytes, rows_.bytes + RowLayout(plan_, rows_.capacity).total);
    MoveRuns({own_.data(), rows_.capacity}, to, runs);
  }
  if (runs.empty()) return;
  const Rows filled(plan_, to, 0);
  for (size_t i = 0; i < runs.size(); ++i) {
    const size_t first = runs[i].to;
    if (runs[i].from < ahead_count_) continue;
    // Neighbours that lack the same are filled at once.
    while (i + 1 < runs.size() && runs[i + 1].from >= ahead_count_) ++i;
    GatherCopied(gatherer_->space(), plan_, filled, first, runs[i].to + runs[i].count, {1},
                 gatherer_->scratch());
  }
  if (!(to == rows_)) return;
  std::iota(rows->begin(), rows->end(), 0);
  ahead_count_ = rows->size();
}

void CopiedNodes::Trim() {
  constexpr size_t kMaxKept = size_t{8} << 20;
  if (own_.capacity() <= kMaxKept) return;
  own_ = {};
  links_ = {};
}

}  // namespace vmi
