#include "core/lists/node_reader.h"

#include <cstring>

#include <algorithm>
#include <utility>

#include "core/gather/gather.h"

namespace vmi {

namespace {

template <size_t kSize>
void CopyCells(uint8_t* cells, const std::vector<const uint8_t*>& nodes, size_t offset) {
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i] != nullptr) {
      std::memcpy(cells + i * kSize, nodes[i] + offset, kSize);
    } else {
      std::memset(cells + i * kSize, 0, kSize);
    }
  }
}

// Zeroes where there is no node, so that nothing is followed from there. The usual sizes as loads
// and stores of their own; a call of memcpy costs more than those.
void CopyCells(uint8_t* cells, size_t size, const std::vector<const uint8_t*>& nodes,
               size_t offset) {
  switch (size) {
    case 4:
      return CopyCells<4>(cells, nodes, offset);
    case 8:
      return CopyCells<8>(cells, nodes, offset);
    case 16:
      return CopyCells<16>(cells, nodes, offset);
    default:
      for (size_t i = 0; i < nodes.size(); ++i) {
        if (nodes[i] != nullptr) {
          std::memcpy(cells + i * size, nodes[i] + offset, size);
        } else {
          std::memset(cells + i * size, 0, size);
        }
      }
  }
}

}  // namespace

NodeReader::NodeReader(AddressSpace* space, const Plan& plan, uint64_t link, bool capture)
    : space_(space), plan_(plan), link_(link) {
  // The link comes last; it is a column like the others.
  std::vector<Column> columns;
  if (capture) {
    for (size_t k = 0; k < plan.columns().size(); ++k) {
      const Column& column = plan.columns()[k];
      if (column.depth != 0) continue;
      columns.push_back(column);
      numbers_.push_back(static_cast<uint8_t>(k));
      offsets_.push_back(captured_size_);
      captured_size_ += column.size;
    }
  }
  Column link_column;
  link_column.offset = static_cast<int32_t>(link);
  link_column.size = sizeof(ListLink);
  columns.push_back(link_column);
  windows_ = Plan::MakeWindows(columns, 0);
  for (const ColumnWindow& window : windows_) window_bytes_ += window.length;
  numbers_.push_back(kLinkColumn);
  offsets_.push_back(captured_size_);
  row_.resize(captured_size_ + sizeof(ListLink));
}

void NodeReader::ReadAhead(const std::vector<uint64_t>& trail, const RowBuffer& room) {
  const size_t count = std::min(trail.size(), kMaxAhead);
  trail_ = &trail;
  links_.resize(count);
  known_.assign(count, 0);
  captured_.ahead_count = count;
  if (room.bytes != nullptr && count <= room.capacity) {
    captured_.room = room;
    ahead_ = room;
  } else {
    captured_.own = std::move(space_->scratch()->ahead);
    captured_.own.resize(RowLayout(plan_, count).total);
    ahead_ = {captured_.own.data(), count};
  }
  const RowLayout layout(plan_, ahead_.capacity);
  captured_.is_deep.assign(count, 0);
  Memory& memory = *space_->memory();
  const size_t size = memory.parallel() ? GatherScratch::kBlock : GatherScratch::kSerialBlock;
  memory.Refresh();
  // Made now, and not by two threads at once.
  space_->gather_scratch();
  memory.ForBlocks((count + size - 1) / size, [&](size_t block, int thread) {
    const size_t first = block * size;
    ReadAheadBlock(layout, first, std::min(size, count - first), thread);
    ReadDeepBlock(first, std::min(size, count - first), thread);
  });
}

// On two threads at once, perhaps: of this object it changes what belongs to its own nodes, and its
// lane.
void NodeReader::ReadAheadBlock(const RowLayout& layout, size_t first, size_t count, int thread) {
  Lane* lane = &space_->scratch()->lanes[static_cast<size_t>(thread)];
  const std::vector<uint64_t>& trail = *trail_;
  lane->requests.clear();
  lane->first.clear();
  lane->nodes.clear();
  lane->buffer.resize(count * window_bytes_);
  for (size_t i = 0; i < count; ++i) {
    uint8_t* into = lane->buffer.data() + i * window_bytes_;
    lane->first.push_back(lane->requests.size());
    lane->nodes.push_back(into);
    if (!AddRequests(trail[first + i], into, &lane->requests))
      lane->requests.resize(lane->first.back());
  }
  lane->first.push_back(lane->requests.size());
  Memory& memory = *space_->memory();
  if (!memory.parallel()) memory.Refresh();
  memory.CopyBlock(lane->requests.data(), lane->requests.size());
  for (size_t i = 0; i < count; ++i) {
    // All of it or nothing: what is missing, a read of its own will tell.
    const size_t end = lane->first[i + 1];
    bool complete = lane->first[i] < end;
    for (size_t k = lane->first[i]; k < end; ++k) {
      complete = complete && lane->requests[k].transferred == lane->requests[k].length;
    }
    known_[first + i] = complete;
    if (!complete) lane->nodes[i] = nullptr;
  }
  size_t window_at = 0;
  for (const ColumnWindow& window : windows_) {
    for (const ColumnWindow::Part& part : window.parts) {
      const uint8_t number = numbers_[part.column];
      uint8_t* cells = number == kLinkColumn ? reinterpret_cast<uint8_t*>(links_.data())
                                             : ahead_.bytes + layout.columns[number];
      CopyCells(cells + first * part.size, part.size, lane->nodes, window_at + part.offset);
    }
    window_at += window.length;
  }
}

// What hangs on the nodes of a block.
void NodeReader::ReadDeepBlock(size_t first, size_t count, int thread) {
  if (plan_.max_depth() == 0) return;
  GatherScratch::Lane* lane = &space_->gather_scratch()->lanes[static_cast<size_t>(thread)];
  lane->left.clear();
  std::memset(ahead_.bytes + first * sizeof(uint32_t), 0, count * sizeof(uint32_t));
  GatherBlock(space_, plan_, ahead_, first, first + count, 1, lane);
  std::memset(captured_.is_deep.data() + first, 1, count);
  // A page table is of one thread.
  for (const uint32_t row : lane->left) captured_.is_deep[row] = 0;
}

// false when a part of it is not mapped, or where two threads read, in no window: a TLB is of one
// thread.
bool NodeReader::AddRequests(uint64_t node, uint8_t* into, std::vector<ReadRequest>* requests) {
  const bool in_windows = space_->memory()->parallel();
  for (const ColumnWindow& window : windows_) {
    const uint64_t start = node - link_ + static_cast<uint64_t>(int64_t{window.offset});
    for (uint32_t offset = 0; offset < window.length;) {
      AddressSpace::Run run;
      const uint64_t address = start + offset;
      if (address < start) return false;
      const bool is_resolved = in_windows
                                   ? space_->ResolveInWindows(address, &run)
                                   : space_->Resolve(address, &run) == AddressSpace::kResolved;
      if (!is_resolved) return false;
      const auto length =
          static_cast<uint32_t>(std::min<uint64_t>(window.length - offset, run.length));
      requests->push_back({run.physical, into + offset, length, 0});
      offset += length;
    }
    into += window.length;
  }
  return true;
}

bool NodeReader::TakeAhead(uint64_t node, ListLink* link) {
  const size_t number = FindAhead(node);
  if (number == known_.size() || known_[number] == 0) return false;
  known_[number] = 0;
  cursor_ = number + 1;
  last_ = static_cast<uint32_t>(number);
  *link = links_[number];
  return true;
}

size_t NodeReader::TakeRun(size_t first, size_t max, uint64_t* at, uint64_t* next) {
  if (first >= known_.size()) return 0;
  const uint64_t* trail = trail_->data();
  const size_t end = first + std::min(max, known_.size() - first);
  size_t i = first;
  for (; i < end && trail[i] == *next && known_[i] != 0 && links_[i].prev == *at; ++i) {
    known_[i] = 0;
    *at = trail[i];
    *next = links_[i].next;
  }
  if (i != first) cursor_ = i;
  return i - first;
}

// Number of a node that was read ahead; known_.size() when it was not.
size_t NodeReader::FindAhead(uint64_t node) {
  constexpr size_t kGone = 4;
  const size_t count = known_.size();
  if (count == 0) return count;
  // Some of the list may be gone.
  const size_t end = std::min(count, cursor_ + kGone);
  for (size_t i = cursor_; i < end; ++i) {
    if ((*trail_)[i] == node) return i;
  }
  if (!has_map_) {
    for (size_t i = 0; i < count; ++i) by_node_.Put((*trail_)[i], static_cast<uint32_t>(i));
    has_map_ = true;
  }
  const uint32_t number = by_node_.Get(node);
  return number == AddressMap::kAbsent ? count : number;
}

bool NodeReader::Read(uint64_t node, ListLink* link) {
  pieces_.clear();
  requests_.clear();
  std::memset(row_.data(), 0, row_.size());
  link_is_readable_ = true;
  mask_ = 0;
  last_ = kSingle;
  buffer_.resize(window_bytes_);
  size_t at = 0;
  for (const ColumnWindow& window : windows_) {
    const uint64_t start = node - link_ + static_cast<uint64_t>(int64_t{window.offset});
    for (uint32_t offset = 0; offset < window.length;) {
      AddressSpace::Run run;
      const uint64_t address = start + offset;
      // Addresses wrap as pointers do, but nothing lies across 2^64.
      if (address == 0)
        window.ForPartsAcross(offset, [this](const auto& part) { MarkFaulty(part); });
      const bool is_mapped = space_->Resolve(address, &run) == AddressSpace::kResolved;
      const uint64_t run_length = is_mapped ? run.length : kPageSize - (address & kPageMask);
      const auto length =
          static_cast<uint32_t>(std::min<uint64_t>(window.length - offset, run_length));
      if (is_mapped) {
        pieces_.push_back({&window, offset});
        requests_.push_back({run.physical, buffer_.data() + at + offset, length, 0});
      } else {
        MarkFaulty(window, offset, offset + length);
      }
      offset += length;
    }
    at += window.length;
  }
  space_->memory()->Refresh();
  space_->memory()->CopyBatch(requests_.data(), requests_.size());

  for (size_t i = 0; i < pieces_.size(); ++i) ReadBehindFaults(pieces_[i], requests_[i]);
  at = 0;
  for (const ColumnWindow& window : windows_) {
    for (const ColumnWindow::Part& part : window.parts) {
      if (!IsFaulty(part))
        std::memcpy(row_.data() + offsets_[part.column], buffer_.data() + at + part.offset,
                    part.size);
    }
    at += window.length;
  }
  if (!link_is_readable_) return false;
  std::memcpy(link, row_.data() + captured_size_, sizeof *link);
  std::memcpy(row_.data(), &mask_, sizeof mask_);
  return true;
}

// A read ends at the first page that cannot be read. What the node has in pages behind it is there
// all the same.
void NodeReader::ReadBehindFaults(const Piece& piece, ReadRequest request) {
  auto start = piece.offset;
  while (request.transferred < request.length) {
    const uint64_t fault = request.physical + request.transferred;
    const size_t skipped = std::min(
        request.length, request.transferred + static_cast<size_t>(kPageSize - (fault & kPageMask)));
    MarkFaulty(*piece.window, start + static_cast<uint32_t>(request.transferred),
               start + static_cast<uint32_t>(skipped));
    start += static_cast<uint32_t>(skipped);
    request = {request.physical + skipped, request.into + skipped, request.length - skipped, 0};
    if (request.length > 0) space_->memory()->CopyBatch(&request, 1);
  }
}

bool NodeReader::ReadLink(uint64_t node, ListLink* link) {
  int level;
  space_->memory()->Refresh();
  return space_->Copy(node, reinterpret_cast<uint8_t*>(link), sizeof *link, &level) == sizeof *link;
}

uint32_t NodeReader::Keep() {
  if (last_ != kSingle) return last_;
  captured_.single.insert(captured_.single.end(), row_.begin(),
                          row_.begin() + static_cast<ptrdiff_t>(captured_size_));
  return static_cast<uint32_t>(captured_.ahead_count) + single_count_++;
}

ListWalk::Captured NodeReader::TakeCaptured() { return std::move(captured_); }

void NodeReader::MarkFaulty(const ColumnWindow& window, uint32_t from, uint32_t end) {
  window.ForParts(from, end, [this](const auto& part) { MarkFaulty(part); });
}

void NodeReader::MarkFaulty(const ColumnWindow::Part& part) {
  const uint8_t number = numbers_[part.column];
  if (number == kLinkColumn) {
    link_is_readable_ = false;
  } else {
    mask_ |= uint32_t{1} << number;
  }
}

bool NodeReader::IsFaulty(const ColumnWindow::Part& part) const {
  const uint8_t number = numbers_[part.column];
  return number == kLinkColumn ? !link_is_readable_ : (mask_ >> number & 1) != 0;
}

}  // namespace vmi
