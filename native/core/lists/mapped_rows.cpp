#include "core/lists/mapped_rows.h"

#include <cstring>

#include <algorithm>
#include <atomic>

#include "core/bus_guard.h"
#include "core/lists/list_link.h"
#include "core/lists/list_walk.h"

namespace vmi {

namespace {

// Steps between the node that is followed and the one that is prefetched.
constexpr size_t kAhead = 6;

// What FollowLinks works on: trivial, since SIGBUS jumps out of it.
struct Chain {
  uint64_t head;
  uint64_t at;
  uint64_t next;
  // The nodes that the last walk found from here on.
  const uint64_t* expected;
  size_t expected_count;
};

// No system call, no allocation, nothing to destroy. It is not inlined, since variables of a
// function that calls sigsetjmp lie in memory.
[[gnu::noinline]] size_t FollowLinks(AddressSpace* space, const Chain& chain, uint64_t* block,
                                     uint64_t* end) {
  const AddressSpace::FlatFinder finder(space->WidestFlat(), 0, sizeof(ListLink));
  const uint64_t head = chain.head;
  const size_t skipped = std::min(chain.expected_count, kAhead);
  const uint64_t* hints = chain.expected + skipped;
  const size_t hint_count = chain.expected_count - skipped;
  uint64_t at = chain.at;
  uint64_t next = chain.next;
  size_t count = 0;
  for (; count < MappedRows::kBlock && next != head && IsPlausibleNode(*space, next); ++count) {
    const uint8_t* bytes = finder.Find(next);
    if (bytes == nullptr) bytes = space->Direct(next, sizeof(ListLink));
    if (bytes == nullptr) break;
    // The list most likely leads where it led last time, so that no load waits for the one before
    // it. A hint brings no page in that is not there.
    if (count < hint_count) finder.Prefetch(hints[count]);
    ListLink link;
    // `next` first: if it were read after `prev`, the node could have moved to another place
    // between the two.
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

}  // namespace

size_t MappedRows::Follow(const FoundNodes& nodes, uint64_t head, uint64_t at, uint64_t* next,
                          uint64_t* block) {
  AddressSpace* space = gatherer_->space();
  const size_t first = std::min(nodes.size(), nodes.last().size());
  const Chain chain{head, at, *next, nodes.last().data() + first, nodes.last().size() - first};
  size_t count = 0;
  uint64_t end = 0;
  if (!WithBusGuard([&] { count = FollowLinks(space, chain, block, &end); })) {
    // The jump may have left a translation half-written.
    space->Flush();
    return 0;
  }
  *next = end;
  return count;
}

void MappedRows::GatherNew(const FoundNodes& nodes) {
  const size_t count = nodes.size() - gathered_;
  if (!gathers_ || count < kBlock || nodes.size() > into_.capacity) return;
  // A source that is gone is noticed at the end of the walk.
  if (!gatherer_->GatherNodes(plan_, nodes.data() + gathered_, count, link_, into_, gathered_).ok())
    return MoveFrom(0);
  gathered_ = nodes.size();
}

Status MappedRows::Fill(const std::vector<uint64_t>& nodes, const RowBuffer& to) {
  const size_t gathered = to == into_ ? gathered_ : 0;
  return gatherer_->GatherNodes(plan_, nodes.data() + gathered, nodes.size() - gathered, link_, to,
                                gathered);
}

}  // namespace vmi
