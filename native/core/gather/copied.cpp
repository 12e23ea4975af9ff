#include "core/gather/copied.h"

#include <cstring>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace vmi {

namespace {

// Requests of one batch where the source is asked by one thread: the more, the more often it finds
// a page that it has just read.
constexpr size_t kSerialBlock = 1024;

// Fills rows with one batch for each depth.
class CopiedGather {
 public:
  // `is_owner`: whether this is the thread that may use the page table.
  CopiedGather(AddressSpace* space, const Plan& plan, const Rows& rows, bool is_owner,
               CopiedScratch::Lane* lane)
      : space_(space),
        plan_(plan),
        rows_(rows),
        is_owner_(is_owner),
        lane_(*lane),
        pieces_(lane->pieces),
        requests_(lane->requests),
        slots_(lane->slots) {}

  // Rows [first, end), one depth after the other.
  void Run(size_t first, size_t end, Depths depths) {
    // Bounds what a batch takes, however many rows there are.
    constexpr size_t kMaxGroups = size_t{1} << 16;
    const int last_depth = std::min(depths.last, plan_.max_depth());
    const std::vector<ColumnGroup>& groups = plan_.groups();
    size_t begin = 0;
    for (int depth = 0; depth <= last_depth; ++depth) {
      size_t after = begin;
      while (after < groups.size() && groups[after].depth == depth) ++after;
      const size_t block = std::max<size_t>(1, kMaxGroups / std::max<size_t>(1, after - begin));
      for (size_t row = first; depth >= depths.first && row < end; row += block)
        RunDepth(groups.data() + begin, after - begin, row, std::min(end, row + block));
      begin = after;
    }
  }

 private:
  static constexpr uint32_t kNone = CopiedScratch::kNone;
  using Piece = CopiedScratch::Piece;
  using Request = CopiedScratch::Request;

  static constexpr size_t kFirstSlots = 256;
  // Bytes between two requests that are read as one. To copy as much takes no longer than a second
  // element.
  static constexpr uint64_t kMaxGap = 2048;

  void RunDepth(const ColumnGroup* groups, size_t group_count, size_t first, size_t end) {
    groups_ = groups;
    pieces_.clear();
    requests_.clear();
    lane_.repeats.clear();
    any_fault_ = false;
    slots_.assign(kFirstSlots, kNone);
    last_request_.fill(0);
    for (size_t g = 0; g < group_count; ++g) AddGroup(g, first, end);
    ReadAll();
    if (any_fault_) ZeroFaulty(group_count, first, end);
    for (const auto& repeat : lane_.repeats) CopyFromRowBefore(groups[repeat.group], repeat.row);
  }

  // One group of all rows.
  void AddGroup(size_t g, size_t first, size_t end) {
    const ColumnGroup& group = groups_[g];
    // Where the group of the row before starts, if it is read.
    bool has_last = false;
    uint64_t last = 0;
    for (size_t row = first; row < end; ++row) {
      uint64_t start;
      if (!rows_.FindStart(group, row, &start)) {
        rows_.ZeroGroup(group, row);
        has_last = false;
      } else if (has_last && start == last) {
        // Children of one parent, or threads with one set of credentials.
        lane_.repeats.push_back({static_cast<uint32_t>(row), static_cast<uint32_t>(g)});
      } else if (AddGroupOfRow(g, row, start)) {
        has_last = true;
        last = start;
      } else {
        // Nothing is followed from zeroes.
        rows_.ZeroGroup(group, row);
        lane_.unfilled.push_back(static_cast<uint32_t>(row));
        has_last = false;
      }
    }
  }

  // false: it takes a page table, which this thread may not use.
  bool AddGroupOfRow(size_t g, size_t row, uint64_t start) {
    const ColumnGroup& group = groups_[g];
    for (uint32_t offset = 0; offset < group.length;) {
      const uint64_t address = start + offset;
      AddressSpace::Run run;
      // Addresses wrap as pointers do, but nothing lies across 2^64.
      if (address == 0)
        group.ForPartsAcross(offset, [&](const auto& part) { SetFaulty(row, part.column); });
      bool is_mapped;
      if (is_owner_) {
        is_mapped = space_->Resolve(address, &run) == AddressSpace::kResolved;
      } else {
        is_mapped = space_->ResolveInWindows(address, &run);
        if (!is_mapped) return false;
      }
      uint64_t run_length = kPageSize - (address & kPageMask);
      if (is_mapped) run_length = std::min(run.length, kPageSize - (run.physical & kPageMask));
      const auto length =
          static_cast<uint32_t>(std::min<uint64_t>(group.length - offset, run_length));
      if (is_mapped) {
        AddPiece({run.physical, static_cast<uint32_t>(row), length, static_cast<uint16_t>(g),
                  static_cast<uint16_t>(offset), kNone});
      } else {
        MarkFaulty(group, row, offset, offset + length);
      }
      offset += length;
    }
    return true;
  }

  void AddPiece(Piece piece) {
    const auto number = static_cast<uint32_t>(pieces_.size());
    Request& request = requests_[FindRequest(piece.group, piece.physical)];
    const uint64_t end = std::max(request.physical + request.length, piece.physical + piece.length);
    request.physical = std::min(request.physical, piece.physical);
    request.length = static_cast<uint32_t>(end - request.physical);
    piece.next = std::exchange(request.first_piece, number);
    pieces_.push_back(piece);
  }

  // Number of the request for the page of `physical`; a new one is empty.
  uint32_t FindRequest(size_t group, uint64_t physical) {
    const uint64_t page = physical / kPageSize;
    // What one row after the other points to was often made one after the other.
    uint32_t& last = last_request_[group];
    if (last < requests_.size() && requests_[last].physical / kPageSize == page) return last;
    uint32_t* slot = FindSlot(page);
    if (*slot == kNone) {
      if ((requests_.size() + 1) * 2 > slots_.size()) {
        GrowSlots();
        slot = FindSlot(page);
      }
      *slot = static_cast<uint32_t>(requests_.size());
      requests_.push_back({physical, 0, kNone});
    }
    last = *slot;
    return last;
  }

  uint32_t* FindSlot(uint64_t page) {
    size_t i = static_cast<size_t>((page * 0x9e37'79b9'7f4a'7c15) >> 32) & (slots_.size() - 1);
    while (slots_[i] != kNone && requests_[slots_[i]].physical / kPageSize != page)
      i = (i + 1) & (slots_.size() - 1);
    return &slots_[i];
  }

  void GrowSlots() {
    slots_.assign(slots_.size() * 4, kNone);
    for (uint32_t i = 0; i < requests_.size(); ++i)
      *FindSlot(requests_[i].physical / kPageSize) = i;
  }

  void ReadAll() {
    if (requests_.empty()) return;
    Memory& memory = *space_->memory();
    memory.Refresh();
    const size_t block = memory.parallel() ? kCopiedBlock : kSerialBlock;
    // The steps of a look-up are read one by one, as they were when they were read ahead.
    const bool along = is_owner_ && space_->has_detour() && requests_.size() <= block;
    for (size_t first = 0; first < requests_.size(); first += block) {
      const size_t count = std::min(block, requests_.size() - first);
      PlanReads(requests_.data() + first, count, along);
      if (along) {
        space_->CopyBatch(lane_.reads.data(), lane_.reads.size());
      } else {
        memory.CopyBlock(lane_.reads.data(), lane_.reads.size());
      }
      ScatterReads(requests_.data() + first, count);
    }
  }

  // Turns requests into elements of one batch; neighbours become one.
  void PlanReads(Request* requests, size_t count, bool along) {
    std::vector<ReadRequest>& reads = lane_.reads;
    if (!along)
      std::sort(requests, requests + count,
                [](const Request& a, const Request& b) { return a.physical < b.physical; });
    reads.clear();
    size_t bytes = 0;
    for (size_t i = 0; i < count; ++i) {
      const Request& request = requests[i];
      const uint64_t gap = reads.empty()
                               ? UINT64_MAX
                               : request.physical - (reads.back().physical + reads.back().length);
      const bool joins = !along && gap <= kMaxGap;
      const size_t more = request.length + (joins ? static_cast<size_t>(gap) : 0);
      if (joins) {
        reads.back().length += more;
      } else {
        reads.push_back({request.physical, nullptr, request.length, 0});
      }
      bytes += more;
    }
    if (lane_.buffer.size() < bytes) lane_.buffer.resize(bytes);
    uint8_t* into = lane_.buffer.data();
    for (ReadRequest& read : reads) {
      read.into = into;
      into += read.length;
    }
  }

  void ScatterReads(const Request* requests, size_t count) {
    const Request* request = requests;
    for (const ReadRequest& read : lane_.reads) {
      for (; request != requests + count && request->physical - read.physical < read.length;
           ++request) {
        const auto skipped = static_cast<size_t>(request->physical - read.physical);
        ReadRequest part{request->physical, read.into + skipped, request->length, 0};
        if (read.transferred > skipped)
          part.transferred = std::min<size_t>(read.transferred - skipped, request->length);
        // A read ends at the first page that cannot be read. This request may lie behind it.
        if (read.transferred < skipped) space_->memory()->CopyBlock(&part, 1);
        for (uint32_t p = request->first_piece; p != kNone; p = pieces_[p].next)
          Scatter(pieces_[p], part);
      }
    }
  }

  // Copies the columns of a piece to where they belong.
  void Scatter(const Piece& piece, const ReadRequest& request) {
    const ColumnGroup& group = groups_[piece.group];
    const auto within = static_cast<size_t>(piece.physical - request.physical);
    const uint8_t* from = request.into + within;
    const size_t read = request.transferred > within ? request.transferred - within : 0;
    const auto readable = static_cast<uint32_t>(std::min<size_t>(read, piece.length));
    if (readable == group.length) {
      for (const ColumnGroup::Part& part : group.parts)
        Store(rows_.Cell(piece.row, part.column), from + part.offset, part.size);
      return;
    }
    const uint32_t piece_end = piece.offset + readable;
    for (const ColumnGroup::Part& part : group.parts) {
      const uint32_t start = std::max<uint32_t>(part.offset, piece.offset);
      const uint32_t end = std::min<uint32_t>(part.offset + part.size, piece_end);
      if (start >= end) continue;
      std::memcpy(rows_.Cell(piece.row, part.column) + (start - part.offset),
                  from + (start - piece.offset), end - start);
    }
    if (readable < piece.length)
      MarkFaulty(group, piece.row, piece_end, piece.offset + piece.length);
  }

  // The usual sizes are loads and stores of their own: a call of memcpy costs more than those.
  static void Store(uint8_t* cell, const uint8_t* from, uint32_t size) {
    switch (size) {
      case 8:
        std::memcpy(cell, from, 8);
        return;
      case 4:
        std::memcpy(cell, from, 4);
        return;
      case 16:
        std::memcpy(cell, from, 16);
        return;
      default:
        std::memcpy(cell, from, size);
    }
  }

  void ZeroFaulty(size_t group_count, size_t first, size_t end) {
    for (size_t row = first; row < end; ++row) {
      for (size_t g = 0; g < group_count; ++g) {
        for (const ColumnGroup::Part& part : groups_[g].parts) {
          if (rows_.IsFaulty(row, part.column))
            std::memset(rows_.Cell(row, part.column), 0, part.size);
        }
      }
    }
  }

  void CopyFromRowBefore(const ColumnGroup& group, size_t row) {
    for (const ColumnGroup::Part& part : group.parts) {
      Store(rows_.Cell(row, part.column), rows_.Cell(row - 1, part.column), part.size);
      if (rows_.IsFaulty(row - 1, part.column)) SetFaulty(row, part.column);
    }
  }

  // Marks the columns that need a byte of [from, end) of the group.
  void MarkFaulty(const ColumnGroup& group, size_t row, uint32_t from, uint32_t end) {
    group.ForParts(from, end, [&](const auto& part) { SetFaulty(row, part.column); });
  }
  void SetFaulty(size_t row, size_t column) {
    rows_.SetFaulty(row, column);
    any_fault_ = true;
  }

  AddressSpace* space_;
  const Plan& plan_;
  const Rows& rows_;
  bool is_owner_;
  const ColumnGroup* groups_ = nullptr;
  CopiedScratch::Lane& lane_;
  std::vector<Piece>& pieces_;
  std::vector<Request>& requests_;
  std::vector<uint32_t>& slots_;
  // Number of the request of each group's last piece.
  std::array<uint32_t, Plan::kMaxColumns> last_request_{};
  bool any_fault_ = false;
};

// Clears the fault bits of the columns of some depths.
void ClearFaults(const Plan& plan, const Rows& rows, size_t row, Depths depths) {
  uint32_t mask = rows.Mask(row);
  for (size_t k = 0; k < plan.columns().size(); ++k) {
    const int depth = plan.columns()[k].depth;
    if (depth >= depths.first && depth <= depths.last) mask &= ~(uint32_t{1} << k);
  }
  rows.SetMask(row, mask);
}

// Two threads take blocks of rows, each down to the last depth, so that neither waits for the other
// between depths. Rows that take the page table are filled in the end, on the owner's thread.
void GatherParallel(AddressSpace* space, const Plan& plan, const Rows& rows, size_t first_row,
                    size_t end_row, Depths depths, CopiedScratch* scratch) {
  for (CopiedScratch::Lane& lane : scratch->lanes) lane.unfilled.clear();
  const size_t blocks = (end_row - first_row + kCopiedBlock - 1) / kCopiedBlock;
  space->memory()->ForBlocks(blocks, [&](size_t block, int thread) {
    const size_t first = first_row + block * kCopiedBlock;
    CopiedScratch::Lane* lane = &scratch->lanes[static_cast<size_t>(thread)];
    CopiedGather(space, plan, rows, false, lane)
        .Run(first, std::min(end_row, first + kCopiedBlock), depths);
  });
  std::vector<uint32_t> unfilled;
  for (CopiedScratch::Lane& lane : scratch->lanes)
    unfilled.insert(unfilled.end(), lane.unfilled.begin(), lane.unfilled.end());
  std::sort(unfilled.begin(), unfilled.end());
  unfilled.erase(std::unique(unfilled.begin(), unfilled.end()), unfilled.end());
  CopiedGather gather(space, plan, rows, true, &scratch->lanes[0]);
  for (size_t i = 0; i < unfilled.size();) {
    const size_t first = unfilled[i];
    size_t end = first;
    for (; i < unfilled.size() && unfilled[i] == end; ++i) ClearFaults(plan, rows, end++, depths);
    gather.Run(first, end, depths);
  }
}

}  // namespace

void GatherCopied(AddressSpace* space, const Plan& plan, const Rows& rows, size_t first, size_t end,
                  Depths depths, CopiedScratch* scratch) {
  if (space->memory()->parallel() && end - first > kCopiedBlock)
    return GatherParallel(space, plan, rows, first, end, depths, scratch);
  CopiedGather(space, plan, rows, true, &scratch->lanes[0]).Run(first, end, depths);
}

}  // namespace vmi
