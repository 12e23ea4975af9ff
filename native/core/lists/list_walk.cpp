#include "core/lists/list_walk.h"

#include <ctime>

#include <algorithm>
#include <utility>

namespace vmi {

namespace {

// Written to `prev` of a node that list_del_rcu took out. include/linux/poison.h, with the
// POISON_POINTER_DELTA of x86-64 (CONFIG_ILLEGAL_POINTER_VALUE).
constexpr uint64_t kListPoison2 = 0xdead'0000'0000'0122;

// Times a place is looked at again before it counts as broken. With the pauses between them that
// outlasts a vCPU that was scheduled away inside list_del, in most cases.
constexpr int kAttempts = 10;
// Times a list is started again.
constexpr int kRestarts = 3;
// Lists between the one that is followed and the one whose head is prefetched.
constexpr size_t kHeadsAhead = 6;

}  // namespace

Status ListWalk::Run(const std::vector<uint64_t>& heads) {
  const AddressSpace::FlatFinder finder(space_.WidestFlat(), 0, sizeof(ListLink));
  for (size_t i = 0; i < heads.size(); ++i) {
    if (i + kHeadsAhead < heads.size()) finder.Prefetch(heads[i + kHeadsAhead]);
    nodes_.StartList();
    Status status = WalkOne(heads[i], copied_ != nullptr ? copied_->head(i) : ListLink());
    if (status.ok()) continue;
    // A source that is gone must not look like a broken list.
    Status usable = space_.memory()->Check();
    return usable.ok() ? std::move(status) : std::move(usable);
  }
  return {};
}

// `ahead`: the links of the head where they were read ahead, else zero.
Status ListWalk::WalkOne(uint64_t head, const ListLink& ahead) {
  head_ = head;
  restarts_ = 0;
  Status status;
  if (ahead.next != 0) {
    StartAt(ahead);
  } else {
    status = Start();
  }
  if (!status.ok()) return status;
  while (true) {
    if (copied_ != nullptr) {
      RunCopied();
    } else {
      status = RunMapped();
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

// Goes to the head, with no row of this list.
Status ListWalk::Start() {
  ListLink link;
  int level;
  const size_t read = space_.Copy(head_, reinterpret_cast<uint8_t*>(&link), sizeof link, &level);
  if (read < sizeof link) return space_.MakeFault(head_ + read, sizeof link, read, level);
  StartAt(link);
  return {};
}

void ListWalk::StartAt(const ListLink& head) {
  head_prev_ = head.prev;
  at_ = head_;
  next_ = head.next;
  attempts_ = 0;
}

// Whether the head points back at the last node.
bool ListWalk::Closes() {
  if (head_prev_ == at_) return true;
  ListLink link;
  if (!ReadLink(head_, &link)) return false;
  head_prev_ = link.prev;
  found_prev_ = link.prev;
  return link.prev == at_;
}

// Mapped memory: as many nodes as follow each other without trouble.
Status ListWalk::RunMapped() {
  size_t count;
  do {
    uint64_t block[MappedRows::kBlock];
    uint64_t end = next_;
    count = mapped_->Follow(nodes_, head_, at_, &end, block);
    if (nodes_.FollowLast(block, count) && nodes_.live() + count <= max_) {
      nodes_.AddRun(block, count);
      at_ = block[count - 1];
      next_ = end;
      attempts_ = 0;
    } else {
      for (size_t i = 0; i < count; ++i) {
        // Step decides about a node that was seen before.
        if (nodes_.Number(block[i]) != FoundNodes::kAbsent) return {};
        Status status = Accept(block[i], i + 1 < count ? block[i + 1] : end, 0);
        if (!status.ok()) return status;
      }
    }
    mapped_->GatherNew(nodes_);
  } while (count == MappedRows::kBlock);
  return {};
}

// Copied memory: what was read ahead, as long as the list is what it was.
void ListWalk::RunCopied() {
  if (!nodes_.follows_last()) return;
  const size_t first = nodes_.size();
  const size_t count = copied_->TakeRun(first, max_ - nodes_.live(), &at_, &next_);
  if (count == 0) return;
  nodes_.AddFromLast(count, static_cast<uint32_t>(first));
  attempts_ = 0;
}

Status ListWalk::Step() {
  if (!IsPlausibleNode(space_, next_)) return Recover(Trouble::kWild);
  ListLink link;
  uint32_t row = 0;
  // A node that was read ahead and does not fit is asked for again.
  if (copied_ != nullptr && copied_->TakeAhead(next_, at_, &link.next, &row))
    return Visit(next_, link.next, row);
  const bool is_readable =
      copied_ != nullptr ? copied_->Read(next_, &link) : ReadLink(next_, &link);
  if (!is_readable) {
    Status usable = space_.memory()->Check();
    return usable.ok() ? Recover(Trouble::kUnreadable) : std::move(usable);
  }
  if (link.prev != at_) {
    found_prev_ = link.prev;
    if (!IsHalfDone(link.prev) || nodes_.Number(next_) != FoundNodes::kAbsent)
      return Recover(Trouble::kBackPointer);
  }
  if (copied_ != nullptr) row = copied_->Keep();
  return Visit(next_, link.next, row);
}

// Whether next->prev is the node before `at_`, and stays so: the guest was stopped within
// list_add_rcu or list_del_rcu of `at_`, with half of the pointers set. All but `at_` itself agree
// on the order.
bool ListWalk::IsHalfDone(uint64_t next_prev) const {
  return attempts_ >= kAttempts && at_ != head_ && next_prev == nodes_.BeforeLast(head_);
}

// A node that is linked where it was found.
Status ListWalk::Visit(uint64_t node, uint64_t next, uint32_t row) {
  const uint32_t number = nodes_.Number(node);
  if (number == FoundNodes::kHead) {
    // The walk was on a node while it moved to another list.
    if (++restarts_ > kRestarts) {
      return Broken(node, Hex(at_) + " leads to the head of another list, " + Hex(node));
    }
    Status status = CountRetry();
    if (!status.ok()) return status;
    while (nodes_.list_size() > 0) DropLast();
    return Start();
  }
  if (nodes_.Has(number, node)) {
    // It was freed where it was, and its memory serves a new node here.
    Status status = CountRetry();
    if (!status.ok()) return status;
    nodes_.Remove(number);
    if (mapped_ != nullptr) mapped_->MoveFrom(number);
  }
  return Accept(node, next, row);
}

Status ListWalk::Accept(uint64_t node, uint64_t next, uint32_t row) {
  if (nodes_.live() >= max_) {
    return Corrupt(node, "the lists have more than " + std::to_string(max_) + " nodes");
  }
  if (nodes_.size() + nodes_.dropped() >= max_ * 2 + 1024) {
    return Broken(node, "it changes faster than it can be followed");
  }
  nodes_.Add(node, row);
  at_ = node;
  next_ = next;
  attempts_ = 0;
  return {};
}

// `next_` is no successor of `at_`: finds the last node that is still linked, and what follows it
// now.
Status ListWalk::Recover(Trouble trouble) {
  Status status = CountRetry();
  if (!status.ok()) return status;
  if (attempts_ > kAttempts) return GiveUp(trouble);
  if (attempts_ > 2) Pause();
  const uint64_t old_at = at_;
  const uint64_t old_next = next_;
  status = StepBack();
  if (!status.ok()) return status;
  attempts_ = at_ != old_at || next_ != old_next ? 0 : attempts_ + 1;
  return {};
}

Status ListWalk::StepBack() {
  while (true) {
    ListLink link;
    const bool is_readable = ReadLink(at_, &link);
    if (at_ == head_) {
      if (!is_readable) {
        Status status = space_.memory()->Check();
        return status.ok() ? Status(Broken(head_, "its head cannot be read any more"))
                           : std::move(status);
      }
      head_prev_ = link.prev;
      next_ = link.next;
      return {};
    }
    if (is_readable && link.prev == nodes_.BeforeLast(head_)) {
      next_ = link.next;
      return {};
    }
    // It was unlinked (`prev` is LIST_POISON2), or freed and used again, or the node before it was.
    DropLast();
    at_ = nodes_.Last(head_);
  }
}

Status ListWalk::GiveUp(Trouble trouble) const {
  switch (trouble) {
    case Trouble::kWild:
      return Broken(at_, Hex(at_) + " points to " + Hex(next_) + ", which is not a kernel address");
    case Trouble::kUnreadable:
      return Broken(next_, Hex(at_) + " points to " + Hex(next_) + ", which cannot be read");
    case Trouble::kBackPointer:
      break;
  }
  const char* why = found_prev_ == kListPoison2 ? " (unlinked)" : "";
  return Broken(next_, Hex(at_) + " points to " + Hex(next_) + ", which points back to " +
                           Hex(found_prev_) + why);
}

// Bounds the walk however the guest behaves.
Status ListWalk::CountRetry() {
  ++retries_;
  if (retries_ <= 64 + nodes_.size() / 4) return {};
  return Broken(next_, "it changed " + std::to_string(retries_) + " times under the walk");
}

// 20 us to 1.3 ms a time, a quarter of a second in all.
void ListWalk::Pause() {
  const int64_t wanted = int64_t{20'000} << std::min(attempts_ - 3, 6);
  if (paused_ + wanted > 250'000'000) return;
  paused_ += wanted;
  const timespec time{0, static_cast<long>(wanted)};
  nanosleep(&time, nullptr);
}

void ListWalk::DropLast() {
  const uint32_t row = nodes_.DropLast();
  if (copied_ != nullptr) {
    copied_->Drop(row);
  } else {
    mapped_->Truncate(nodes_.size());
  }
}

bool ListWalk::ReadLink(uint64_t node, ListLink* link) {
  int level;
  space_.memory()->Refresh();
  return space_.Copy(node, reinterpret_cast<uint8_t*>(link), sizeof *link, &level) == sizeof *link;
}

Error ListWalk::Corrupt(uint64_t address, std::string message) const {
  Error error;
  error.code = Code::kCorrupt;
  error.message = std::move(message);
  error.address = address;
  error.found = nodes_.live();
  return error;
}

Error ListWalk::Broken(uint64_t address, const std::string& what) const {
  return Corrupt(address, "the list at " + Hex(head_) + " is broken after " +
                              std::to_string(nodes_.list_size()) + " nodes: " + what);
}

}  // namespace vmi
