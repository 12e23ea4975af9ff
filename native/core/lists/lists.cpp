#include "core/lists/lists.h"

#include <cstring>
#include <ctime>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "core/bus_guard.h"
#include "core/gather/gather.h"
#include "core/lists/list_scratch.h"
#include "core/lists/node_reader.h"

namespace vmi {

namespace {

// Written to `prev` of a node that list_del_rcu took out. include/linux/poison.h, with the
// POISON_POINTER_DELTA of x86-64 (CONFIG_ILLEGAL_POINTER_VALUE).
constexpr uint64_t kListPoison2 = 0xdead'0000'0000'0122;

// One call of WalkLists.
//
// A node counts as linked when its `prev` is the node it was reached from; the `next` to follow is
// the one read together with that `prev`. Where `prev` is another node, the list changed, is
// changing or is broken: the walk goes back to the last node that still is where it was, and on
// from there.
class Walker {
 public:
  Walker(AddressSpace* space, const Plan& plan, const uint64_t* heads, size_t head_count,
         uint64_t link, size_t max, const RowBuffer& room)
      : space_(space),
        plan_(plan),
        heads_(heads, heads + head_count),
        link_(link),
        max_(static_cast<size_t>(std::min<uint64_t>(max, kMaxRowBytes / RowLayout(plan, 1).total))),
        captures_(!space->memory()->mapped()),
        reader_(space, plan, link, captures_),
        seen_(space->scratch()->seen),
        nodes_(space->scratch()->nodes),
        room_(room) {
    space->scratch()->Clear();
  }

  Result<ListWalk> Run() {
    for (const uint64_t head : heads_) {
      if (!IsPlausible(head))
        return Corrupt(head, "the list head " + Hex(head) + " is not a kernel address");
    }
    if (!heads_.empty()) trail_ = &space_->TrailOf(heads_.front(), link_);
    follows_trail_ = heads_.size() == 1 && !trail_->nodes.empty();
    if (!follows_trail_) {
      for (const uint64_t head : heads_) {
        if (seen_.Put(head, kHead) != AddressMap::kAbsent) {
          return Corrupt(head, "two lists have the same head, " + Hex(head));
        }
      }
    }
    // Before anything else is read: what follows is newer, and decides.
    if (captures_ && trail_ != nullptr) reader_.ReadAhead(trail_->nodes, room_);
    for (const uint64_t head : heads_) {
      starts_.push_back(nodes_.size());
      Status status = WalkOne(head);
      if (!status.ok()) {
        // A source that is gone must not look like a broken list.
        Status usable = space_->memory()->Check();
        return usable.ok() ? std::move(status) : std::move(usable);
      }
    }
    starts_.push_back(nodes_.size());
    return Collect();
  }

 private:
  static constexpr uint32_t kHead = UINT32_MAX - 1;
  // Times a place is looked at again before it counts as broken. With the pauses below that
  // outlasts a vCPU that was scheduled away inside list_del, in most cases.
  static constexpr int kAttempts = 10;
  static constexpr int kRestarts = 3;
  static constexpr size_t kSprint = 256;
  static constexpr size_t kAhead = 6;

  bool IsPlausible(uint64_t node) const {
    return node >> 63 != 0 && (node & 7) == 0 && space_->IsCanonical(node);
  }

  Error Corrupt(uint64_t address, std::string message) const {
    Error error;
    error.code = Code::kCorrupt;
    error.message = std::move(message);
    error.address = address;
    error.found = live_;
    return error;
  }

  Error Broken(uint64_t address, const std::string& what) const {
    return Corrupt(address, "the list at " + Hex(head_) + " is broken after " +
                                std::to_string(nodes_.size() - starts_.back()) + " nodes: " + what);
  }

  Status WalkOne(uint64_t head) {
    head_ = head;
    restarts_ = 0;
    Status status = Start();
    if (!status.ok()) return status;
    while (true) {
      if (captures_) {
        TakeRun();
      } else {
        status = Sprint();
        if (!status.ok()) return status;
      }
      if (next_ == head_) {
        if (Closes() || IsHalfDone(head_prev_)) return {};
        status = Recover(Trouble::kBackPointer);
      } else {
        status = Step();
      }
      if (!status.ok()) return status;
    }
  }

  // To the head, with no row of this list.
  Status Start() {
    ListLink link;
    int level;
    const size_t read = space_->Copy(head_, reinterpret_cast<uint8_t*>(&link), sizeof link, &level);
    if (read < sizeof link) return space_->MakeFault(head_ + read, sizeof link, read, level);
    head_prev_ = link.prev;
    at_ = head_;
    next_ = link.next;
    attempts_ = 0;
    return {};
  }

  // Whether the head points back at the last node.
  bool Closes() {
    if (head_prev_ == at_) return true;
    ListLink link;
    if (!reader_.ReadLink(head_, &link)) return false;
    head_prev_ = link.prev;
    found_prev_ = link.prev;
    return link.prev == at_;
  }

  // Mapped memory: as many nodes as follow each other without trouble, kSprint at a time.
  Status Sprint() {
    while (true) {
      uint64_t block[kSprint];
      uint64_t end = 0;
      size_t count = 0;
      if (!WithBusGuard([&] { count = FollowLinks(block, &end); })) {
        space_->Flush();
        return {};
      }
      const bool follows = FollowsTrail(block, count);
      if (follows) AcceptAll(block, count, end);
      for (size_t i = 0; !follows && i < count; ++i) {
        // Seen before: Step decides.
        if (Number(block[i]) != AddressMap::kAbsent) return {};
        Status status = Accept(block[i], i + 1 < count ? block[i + 1] : end);
        if (!status.ok()) return status;
      }
      GatherBlock();
      if (count < kSprint) return {};
    }
  }

  // Up to kSprint nodes from `next_` on; `end`: where the last one leads. No system call, no
  // allocation, nothing to destroy: SIGBUS jumps out of it. Not inlined, since where sigsetjmp is
  // called variables lie in memory.
  [[gnu::noinline]] size_t FollowLinks(uint64_t* block, uint64_t* end) {
    const AddressSpace::FlatFinder finder(space_->WidestFlat(), 0, sizeof(ListLink));
    const uint64_t* trail = trail_ == nullptr ? nullptr : trail_->nodes.data();
    const size_t first = nodes_.size();
    // Nodes of the trail that lie ahead of the first.
    const size_t ahead = trail_ == nullptr || trail_->nodes.size() < first + kAhead
                             ? 0
                             : trail_->nodes.size() - first - kAhead;
    uint64_t at = at_;
    uint64_t next = next_;
    size_t count = 0;
    for (; count < kSprint && next != head_ && IsPlausible(next); ++count) {
      const uint8_t* bytes = finder.Find(next);
      if (bytes == nullptr) bytes = space_->Direct(next, sizeof(ListLink));
      if (bytes == nullptr) break;
      // Where the list led last time it most likely leads again: no load waits for the one before
      // it. A hint brings no page in that is not there.
      if (count < ahead) finder.Prefetch(trail[first + count + kAhead]);
      ListLink link;
      // `next` first: were it read after `prev`, the node could have moved to another place
      // between.
      std::memcpy(&link.next, bytes, sizeof link.next);
      std::atomic_thread_fence(std::memory_order_acquire);
      std::memcpy(&link.prev, bytes + sizeof link.next, sizeof link.prev);
      if (link.prev != at) break;
      block[count] = next;
      at = next;
      next = link.next;
    }
    *end = next;
    return count;
  }

  // The walk has just brought the nodes' pages in; a second look at all of them in the end would
  // bring them in again.
  void GatherBlock() {
    const size_t count = nodes_.size() - gathered_;
    if (!gathers_ || count < kSprint || nodes_.size() > room_.capacity) return;
    // A source that is gone is noticed at the end of the walk.
    if (!GatherNodes(space_, plan_, nodes_.data() + gathered_, count, link_, room_, gathered_).ok())
      return ForgetGathered();
    gathered_ = nodes_.size();
  }

  void ForgetGathered() {
    gathered_ = 0;
    gathers_ = false;
  }

  // What was read ahead, as long as the list is what it was.
  void TakeRun() {
    if (!follows_trail_) return;
    const size_t first = nodes_.size();
    const size_t count = reader_.TakeRun(first, max_ - live_, &at_, &next_);
    if (count == 0) return;
    nodes_.insert(nodes_.end(), trail_->nodes.data() + first, trail_->nodes.data() + first + count);
    for (size_t i = 0; i < count; ++i) numbers_.push_back(static_cast<uint32_t>(first + i));
    live_ += count;
    attempts_ = 0;
  }

  Status Step() {
    if (!IsPlausible(next_)) return Recover(Trouble::kWild);
    ListLink link;
    // Only a node that fits is taken from what was read ahead; about any other the guest is asked.
    if (captures_ && reader_.TakeAhead(next_, &link) && link.prev == at_)
      return Visit(next_, link.next);
    const bool is_readable =
        captures_ ? reader_.Read(next_, &link) : reader_.ReadLink(next_, &link);
    if (!is_readable) {
      Status usable = space_->memory()->Check();
      return usable.ok() ? Recover(Trouble::kUnreadable) : std::move(usable);
    }
    if (link.prev != at_) {
      found_prev_ = link.prev;
      if (!IsHalfDone(link.prev) || Number(next_) != AddressMap::kAbsent)
        return Recover(Trouble::kBackPointer);
    }
    return Visit(next_, link.next);
  }

  // Whether next->prev is the node before `at_`, and stays so: the guest was stopped within
  // list_add_rcu or list_del_rcu of `at_`, with half of the pointers set. All but `at_` itself
  // agree on the order.
  bool IsHalfDone(uint64_t next_prev) const {
    return attempts_ >= kAttempts && at_ != head_ && next_prev == Before(nodes_.size() - 1);
  }

  // As long as the nodes are those of the last walk, in their order, none of them can come twice,
  // and nothing need be remembered of them.
  bool IsNextOnTrail(uint64_t node) const {
    return follows_trail_ && nodes_.size() < trail_->nodes.size() &&
           trail_->nodes[nodes_.size()] == node;
  }

  // The same for some that follow each other, none of them one too many.
  bool FollowsTrail(const uint64_t* nodes, size_t count) const {
    const size_t first = nodes_.size();
    return count > 0 && follows_trail_ && live_ + count <= max_ &&
           first + count <= trail_->nodes.size() &&
           std::memcmp(trail_->nodes.data() + first, nodes, count * sizeof *nodes) == 0;
  }

  void AcceptAll(const uint64_t* nodes, size_t count, uint64_t next) {
    nodes_.insert(nodes_.end(), nodes, nodes + count);
    live_ += count;
    at_ = nodes[count - 1];
    next_ = next;
    attempts_ = 0;
  }

  void StopFollowing() {
    if (!follows_trail_) return;
    follows_trail_ = false;
    for (size_t i = 0; i < nodes_.size(); ++i) seen_.Put(nodes_[i], static_cast<uint32_t>(i));
  }

  // Number of a node of this walk, kHead, or kAbsent.
  uint32_t Number(uint64_t node) {
    if (IsNextOnTrail(node)) return AddressMap::kAbsent;
    StopFollowing();
    return seen_.Get(node);
  }

  // A node that is linked where it was found.
  Status Visit(uint64_t node, uint64_t next) {
    const uint32_t number = Number(node);
    if (number == kHead) {
      // The walk was on a node while it moved to another list.
      if (++restarts_ > kRestarts) {
        return Broken(node, Hex(at_) + " leads to the head of another list, " + Hex(node));
      }
      Status status = CountRetry();
      if (!status.ok()) return status;
      while (nodes_.size() > starts_.back()) DropLast();
      return Start();
    }
    if (number < nodes_.size() && nodes_[number] == node) {
      // It was freed where it was, and its memory serves a new node here.
      Status status = CountRetry();
      if (!status.ok()) return status;
      nodes_[number] = 0;
      --live_;
      if (number < gathered_) ForgetGathered();
    }
    return Accept(node, next);
  }

  Status Accept(uint64_t node, uint64_t next) {
    if (live_ >= max_) {
      return Corrupt(node, "the lists have more than " + std::to_string(max_) + " nodes");
    }
    if (nodes_.size() + dropped_ >= max_ * 2 + 1024) {
      return Broken(node, "it changes faster than it can be followed");
    }
    if (!IsNextOnTrail(node)) {
      StopFollowing();
      seen_.Put(node, static_cast<uint32_t>(nodes_.size()));
    }
    nodes_.push_back(node);
    ++live_;
    if (captures_) numbers_.push_back(reader_.Keep());
    at_ = node;
    next_ = next;
    attempts_ = 0;
    return {};
  }

  enum class Trouble { kBackPointer, kUnreadable, kWild };

  // `next_` is no successor of `at_`: finds the last node that is still linked, and what follows it
  // now.
  Status Recover(Trouble trouble) {
    Status status = CountRetry();
    if (!status.ok()) return status;
    if (attempts_ > kAttempts) return GiveUp(trouble);
    if (attempts_ > 2) Pause();
    const uint64_t old_next = next_;
    bool moved = false;
    while (true) {
      ListLink link;
      const bool is_readable = reader_.ReadLink(at_, &link);
      if (at_ == head_) {
        if (!is_readable) {
          status = space_->memory()->Check();
          return status.ok() ? Status(Broken(head_, "its head cannot be read any more"))
                             : std::move(status);
        }
        head_prev_ = link.prev;
        next_ = link.next;
        break;
      }
      if (is_readable && link.prev == Before(nodes_.size() - 1)) {
        next_ = link.next;
        break;
      }
      // Unlinked (prev is LIST_POISON2), or freed and used again, or the node before it was.
      DropLast();
      at_ = Before(nodes_.size());
      moved = true;
    }
    attempts_ = moved || next_ != old_next ? 0 : attempts_ + 1;
    return {};
  }

  Status GiveUp(Trouble trouble) const {
    switch (trouble) {
      case Trouble::kWild:
        return Broken(at_,
                      Hex(at_) + " points to " + Hex(next_) + ", which is not a kernel address");
      case Trouble::kUnreadable:
        return Broken(next_, Hex(at_) + " points to " + Hex(next_) + ", which cannot be read");
      case Trouble::kBackPointer:
        break;
    }
    const char* why = found_prev_ == kListPoison2 ? " (unlinked)" : "";
    return Broken(next_, Hex(at_) + " points to " + Hex(next_) + ", which points back to " +
                             Hex(found_prev_) + why);
  }

  // Bounded however the guest behaves.
  Status CountRetry() {
    ++retries_;
    if (retries_ <= 64 + nodes_.size() / 4) return {};
    return Broken(next_, "it changed " + std::to_string(retries_) + " times under the walk");
  }

  // 20 us to 1.3 ms a time, a quarter of a second in all.
  void Pause() {
    const int64_t wanted = int64_t{20'000} << std::min(attempts_ - 3, 6);
    if (paused_ + wanted > 250'000'000) return;
    paused_ += wanted;
    const timespec time{0, static_cast<long>(wanted)};
    nanosleep(&time, nullptr);
  }

  // The node before nodes_[end] in this list, or its head.
  uint64_t Before(size_t end) const {
    while (end > starts_.back()) {
      if (nodes_[--end] != 0) return nodes_[end];
    }
    return head_;
  }

  void DropLast() {
    --live_;
    Pop();
    // Holes that Visit left before it: the last entry is always a node.
    while (nodes_.size() > starts_.back() && nodes_.back() == 0) Pop();
  }

  void Pop() {
    nodes_.pop_back();
    ++dropped_;
    if (nodes_.size() < gathered_) ForgetGathered();
    if (captures_) numbers_.pop_back();
  }

  void CollectBetweenHoles(ListWalk* walk) {
    walk->bases.clear();
    walk->bases.reserve(live_);
    size_t kept = 0;
    for (size_t list = 0; list + 1 < starts_.size(); ++list) {
      const size_t before = walk->bases.size();
      for (size_t i = starts_[list]; i < starts_[list + 1]; ++i) {
        if (nodes_[i] == 0) continue;
        walk->bases.push_back(nodes_[i] - link_);
        if (captures_) numbers_[kept++] = numbers_[i];
      }
      walk->counts.push_back(static_cast<uint32_t>(walk->bases.size() - before));
    }
    if (captures_) numbers_.resize(kept);
  }

  Result<ListWalk> Collect() {
    ListWalk walk;
    walk.retries = retries_;
    walk.bases = std::move(space_->scratch()->bases);
    if (live_ == nodes_.size()) {
      walk.bases.assign(nodes_.begin(), nodes_.end());
      for (uint64_t& base : walk.bases) base -= link_;
      for (size_t list = 0; list + 1 < starts_.size(); ++list) {
        walk.counts.push_back(static_cast<uint32_t>(starts_[list + 1] - starts_[list]));
      }
    } else {
      CollectBetweenHoles(&walk);
    }
    // What followed its trail to the end leaves it as it is.
    if (trail_ != nullptr && !(follows_trail_ && walk.bases.size() == trail_->nodes.size())) {
      trail_->nodes.assign(walk.bases.begin(), walk.bases.end());
      for (uint64_t& node : trail_->nodes) node += link_;
    }
    if (captures_) {
      walk.captured = reader_.TakeCaptured();
      walk.captured.numbers = std::move(numbers_);
    }
    // A hole after them moves only rows that are not gathered yet.
    walk.gathered = gathered_;
    walk.room = room_.bytes;
    return walk;
  }

  AddressSpace* space_;
  const Plan& plan_;
  std::vector<uint64_t> heads_;
  uint64_t link_;
  size_t max_;
  // Whether columns are read with the link: where a read is a system call.
  bool captures_;
  NodeReader reader_;

  // What the last walk of these lists left; null: there are no lists.
  AddressSpace::Trail* trail_ = nullptr;

  // Numbers of nodes and heads, unless the walk follows its trail.
  AddressMap& seen_;
  bool follows_trail_ = false;
  // All lists, in order; 0: dropped.
  std::vector<uint64_t>& nodes_;
  // Of each node, where its columns are kept.
  std::vector<uint32_t> numbers_;
  std::vector<size_t> starts_;
  // Rows gathered so far, as long as no node was taken back.
  RowBuffer room_;
  size_t gathered_ = 0;
  bool gathers_ = true;
  size_t live_ = 0;
  size_t dropped_ = 0;
  uint32_t retries_ = 0;
  int64_t paused_ = 0;

  // The list being walked.
  uint64_t head_ = 0;
  uint64_t head_prev_ = 0;
  // The last node that was linked, and its successor.
  uint64_t at_ = 0;
  uint64_t next_ = 0;
  uint64_t found_prev_ = 0;
  int attempts_ = 0;
  int restarts_ = 0;
};

}  // namespace

Result<ListWalk> WalkLists(AddressSpace* space, const Plan& plan, const uint64_t* heads,
                           size_t head_count, uint64_t link, size_t max, const RowBuffer& room) {
  Status status = space->memory()->Check();
  if (!status.ok()) return status;
  return Walker(space, plan, heads, head_count, link, max, room).Run();
}

namespace {

// Rows that follow each other here and there, or one that was read by itself.
struct CapturedRun {
  size_t row;
  uint32_t number;
  size_t count;
  bool is_deep;
};

std::vector<CapturedRun> FindRuns(const ListWalk::Captured& captured) {
  std::vector<CapturedRun> runs;
  for (size_t row = 0; row < captured.numbers.size(); ++row) {
    const uint32_t number = captured.numbers[row];
    const bool is_ahead = number < captured.ahead_count;
    const bool is_deep = is_ahead && captured.is_deep[number] != 0;
    if (is_ahead && !runs.empty() && runs.back().number + runs.back().count == number &&
        runs.back().is_deep == is_deep) {
      ++runs.back().count;
    } else {
      runs.push_back({row, number, 1, is_deep});
    }
  }
  return runs;
}

void Move(uint8_t* to, const uint8_t* from, size_t bytes) {
  if (to != from) std::memmove(to, from, bytes);
}

// Whether rows can be moved to where they belong, the first first, with none written over before it
// was moved: none goes up.
bool CanMove(const ListWalk::Captured& captured, const std::vector<CapturedRun>& runs) {
  return std::all_of(runs.begin(), runs.end(), [&](const CapturedRun& run) {
    return run.number >= captured.ahead_count || run.number >= run.row;
  });
}

// Masks, and the columns that are there. `ahead`: the rows of `captured` that were read ahead; they
// may lie over `rows` where they can be moved.
void FillCaptured(const Plan& plan, const RowLayout& layout, const ListWalk::Captured& captured,
                  const uint8_t* ahead, const std::vector<CapturedRun>& runs, uint8_t* rows) {
  size_t single_size = sizeof(uint32_t);
  for (const Column& column : plan.columns()) single_size += column.depth == 0 ? column.size : 0;
  const RowLayout from(plan, captured.ahead_capacity());
  size_t single_offset = sizeof(uint32_t);
  const auto single = [&](const CapturedRun& run) {
    return captured.single.data() + (run.number - captured.ahead_count) * single_size;
  };

  for (const CapturedRun& run : runs) {
    const bool is_ahead = run.number < captured.ahead_count;
    const uint8_t* source = is_ahead ? ahead + run.number * sizeof(uint32_t) : single(run);
    uint8_t* masks = rows + run.row * sizeof(uint32_t);
    if (is_ahead && !run.is_deep) {
      std::memset(masks, 0, run.count * sizeof(uint32_t));
    } else {
      Move(masks, source, run.count * sizeof(uint32_t));
    }
  }
  for (size_t k = 0; k < plan.columns().size(); ++k) {
    const Column& column = plan.columns()[k];
    for (const CapturedRun& run : runs) {
      if (column.depth != 0 && !run.is_deep) continue;
      uint8_t* cells = rows + layout.columns[k] + run.row * column.size;
      const bool is_ahead = run.number < captured.ahead_count;
      const uint8_t* source = is_ahead ? ahead + from.columns[k] + run.number * column.size
                                       : single(run) + single_offset;
      Move(cells, source, run.count * column.size);
    }
    if (column.depth == 0) single_offset += column.size;
  }
}

}  // namespace

Status FillRows(AddressSpace* space, const Plan& plan, const ListWalk& walk,
                const RowBuffer& rows) {
  const size_t count = walk.bases.size();
  if (walk.captured.numbers.empty()) {
    const size_t gathered = walk.room == rows.bytes ? walk.gathered : 0;
    return Gather(space, plan, walk.bases.data() + gathered, count - gathered, rows, gathered);
  }
  const RowLayout layout(plan, rows.capacity);
  const ListWalk::Captured& captured = walk.captured;
  const std::vector<CapturedRun> runs = FindRuns(captured);
  std::vector<uint8_t> copy;
  const uint8_t* ahead = captured.ahead();
  if (ahead == rows.bytes && !CanMove(captured, runs)) {
    copy.assign(ahead, ahead + layout.total);
    ahead = copy.data();
  }
  std::memcpy(rows.bytes + layout.bases, walk.bases.data(), count * sizeof(uint64_t));
  FillCaptured(plan, layout, captured, ahead, runs, rows.bytes);
  for (size_t i = 0; i < runs.size();) {
    // Neighbours that lack the same.
    const size_t first = runs[i].row;
    size_t end = first;
    for (; i < runs.size() && !runs[i].is_deep; ++i) end += runs[i].count;
    if (end == first) {
      ++i;
    } else {
      GatherColumns(space, plan, rows, first, end, 1);
    }
  }
  return space->memory()->Check();
}

void Recycle(AddressSpace* space, ListWalk walk) {
  constexpr size_t kMaxKept = size_t{8} << 20;
  if (walk.captured.own.capacity() != 0 && walk.captured.own.capacity() <= kMaxKept) {
    space->scratch()->ahead = std::move(walk.captured.own);
  }
  if (walk.bases.capacity() <= kMaxKept) space->scratch()->bases = std::move(walk.bases);
}

}  // namespace vmi
