// Reads nodes of lists where a read is a system call: the link and the columns of a node at once,
// and what a list is likely to have, many nodes at once and all that hangs on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/paging/address_space.h"
#include "core/lists/list_scratch.h"
#include "core/lists/lists.h"
#include "core/gather/plan.h"

namespace vmi {

class NodeReader {
 public:
  // `capture`: columns of depth 0 are read with the links.
  NodeReader(AddressSpace* space, const Plan& plan, uint64_t link, bool capture);

  // Reads the nodes of an earlier walk, which must stay as they are, into `room` if they fit. What
  // that brings is used once each, by TakeAhead and TakeRun.
  void ReadAhead(const std::vector<uint64_t>& trail, const RowBuffer& room);

  // As Read, from what ReadAhead brought; false when it did not, or it was taken before.
  bool TakeAhead(uint64_t node, ListLink* link);

  // The same for nodes number `first` and on of the trail, `max` at most, as long as each is the
  // one to come next and points back at the one before. `at`: the last node, `next`: its successor.
  // Returns how many; they are kept as their numbers.
  size_t TakeRun(size_t first, size_t max, uint64_t* at, uint64_t* next);

  // Reads a node's link (and columns) at once; false when the link cannot be read.
  bool Read(uint64_t node, ListLink* link);

  // Reads a link and nothing else.
  bool ReadLink(uint64_t node, ListLink* link);

  // Keeps the columns of the node that was taken or read last: their number in ListWalk::Captured.
  uint32_t Keep();

  // All that was kept, without the numbers.
  ListWalk::Captured TakeCaptured();

 private:
  static constexpr uint8_t kLinkColumn = Plan::kMaxColumns;
  static constexpr size_t kMaxAhead = size_t{1} << 18;
  static constexpr uint32_t kSingle = UINT32_MAX;

  struct Piece {
    const ColumnWindow* window;
    uint32_t offset;
  };
  using Lane = ListScratch::Lane;

  void ReadAheadBlock(const RowLayout& layout, size_t first, size_t count, int thread);
  void ReadDeepBlock(size_t first, size_t count, int thread);
  bool AddRequests(uint64_t node, uint8_t* into, std::vector<ReadRequest>* requests);
  size_t FindAhead(uint64_t node);
  void ReadBehindFaults(const Piece& piece, ReadRequest request);
  void MarkFaulty(const ColumnWindow& window, uint32_t from, uint32_t end);
  void MarkFaulty(const ColumnWindow::Part& part);
  bool IsFaulty(const ColumnWindow::Part& part) const;

  AddressSpace* space_;
  const Plan& plan_;
  uint64_t link_;
  std::vector<ColumnWindow> windows_;
  // Of all windows together.
  size_t window_bytes_ = 0;
  // Per column of the windows: its number in the plan, and where it goes in row_.
  std::vector<uint8_t> numbers_;
  std::vector<size_t> offsets_;
  size_t captured_size_ = sizeof(uint32_t);
  // The node read last: mask, columns, link.
  std::vector<uint8_t> row_;
  std::vector<uint8_t> buffer_;
  std::vector<Piece> pieces_;
  std::vector<ReadRequest> requests_;
  uint32_t mask_ = 0;
  bool link_is_readable_ = true;

  // Number of the node that was taken or read last, or kSingle.
  uint32_t last_ = kSingle;
  uint32_t single_count_ = 0;
  ListWalk::Captured captured_;
  RowBuffer ahead_;
  // What was read ahead: the nodes, their links, and whether they are there to be taken.
  const std::vector<uint64_t>* trail_ = nullptr;
  std::vector<ListLink> links_;
  std::vector<uint8_t> known_;
  // The node that comes next if nothing changed.
  size_t cursor_ = 0;
  // Numbers of all nodes, once one was not where the cursor is.
  AddressMap by_node_;
  bool has_map_ = false;
};

}  // namespace vmi
