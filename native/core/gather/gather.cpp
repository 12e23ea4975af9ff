#include "core/gather/gather.h"

#include <cstring>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/bus_guard.h"
#include "core/helper_thread.h"

namespace vmi {

namespace {

// The rows being filled, as plain pointers: usable under a BusGuard.
struct Rows {
  // From row `first` on.
  Rows(const Plan& plan, const RowBuffer& buffer, size_t first)
      : masks(buffer.bytes + first * sizeof(uint32_t)) {
    const RowLayout layout(plan, buffer.capacity);
    bases = buffer.bytes + layout.bases + first * sizeof(uint64_t);
    for (size_t k = 0; k < plan.columns().size(); ++k) {
      sizes[k] = plan.columns()[k].size;
      columns[k] = buffer.bytes + layout.columns[k] + first * sizes[k];
    }
  }

  uint8_t* Cell(size_t row, size_t column) const { return columns[column] + row * sizes[column]; }
  uint64_t Base(size_t row) const { return Load(bases + row * sizeof(uint64_t)); }
  uint64_t Pointer(size_t row, size_t column) const {
    return Load(columns[column] + row * sizeof(uint64_t));
  }
  bool IsFaulty(size_t row, size_t column) const {
    uint32_t mask;
    std::memcpy(&mask, masks + row * sizeof mask, sizeof mask);
    return (mask >> column & 1) != 0;
  }
  void SetFaulty(size_t row, size_t column) const {
    uint32_t mask;
    std::memcpy(&mask, masks + row * sizeof mask, sizeof mask);
    mask |= uint32_t{1} << column;
    std::memcpy(masks + row * sizeof mask, &mask, sizeof mask);
  }

  static uint64_t Load(const uint8_t* from) {
    uint64_t value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }

  uint8_t* masks;
  uint8_t* bases;
  uint8_t* columns[Plan::kMaxColumns];
  uint32_t sizes[Plan::kMaxColumns];
};

// A NULL pointer leads to zeroes that are not a fault; so does one that could not be read, whose
// own bit says it.
bool FindStart(const Rows& rows, const ColumnWindow& window, size_t row, uint64_t* start) {
  uint64_t pointer;
  if (window.from < 0) {
    pointer = rows.Base(row);
  } else {
    pointer = rows.Pointer(row, static_cast<size_t>(window.from));
    if (pointer == 0) return false;
  }
  *start = pointer + static_cast<uint64_t>(int64_t{window.offset});
  return true;
}

void ZeroParts(const Rows& rows, const ColumnWindow& window, size_t row) {
  for (const ColumnWindow::Part& part : window.parts)
    std::memset(rows.Cell(row, part.column), 0, part.size);
}

// Column by column, each as far as it goes: where a window cannot be loaded in one piece.
void CopyParts(AddressSpace* space, const Rows& rows, const ColumnWindow& window, size_t row,
               uint64_t start) {
  for (const ColumnWindow::Part& part : window.parts) {
    uint8_t* cell = rows.Cell(row, part.column);
    int level;
    if (space->Copy(start + part.offset, cell, part.size, &level) == part.size) continue;
    std::memset(cell, 0, part.size);
    rows.SetFaulty(row, part.column);
  }
}

// Rows whose windows are found before any of their columns is copied: enough for their cache misses
// to overlap. A bit each.
constexpr size_t kDirectBlock = 16;

// What a NULL pointer leads to.
alignas(64) constexpr uint8_t kZeroes[Plan::kMaxWindow] = {};

// Where the window of most rows lies. A NULL pointer leads to nothing, whatever lies at 0.
AddressSpace::FlatFinder MakeFinder(const AddressSpace::FlatWindow& flat,
                                    const ColumnWindow& window) {
  const AddressSpace::FlatFinder finder(flat, static_cast<uint64_t>(int64_t{window.offset}),
                                        window.length);
  return window.from >= 0 && finder.Holds(0) ? AddressSpace::FlatFinder() : finder;
}

// Any other's: nullptr where it is not in one piece.
[[gnu::noinline]] const uint8_t* FindElsewhere(AddressSpace* space, const ColumnWindow& window,
                                               uint64_t pointer) {
  if (pointer == 0 && window.from >= 0) return kZeroes;
  return space->Direct(pointer + static_cast<uint64_t>(int64_t{window.offset}), window.length);
}

// Where a window lies in each row of a block. Returns the rows where that is not in one piece,
// which have zeroes instead.
uint64_t FindWindows(AddressSpace* space, AddressSpace::FlatFinder finder, const Rows& rows,
                     const ColumnWindow& window, size_t first, size_t count,
                     const uint8_t** found) {
  const uint8_t* pointers = window.from >= 0 ? rows.Cell(first, static_cast<size_t>(window.from))
                                             : rows.bases + first * sizeof(uint64_t);
  uint64_t elsewhere = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t pointer = Rows::Load(pointers + i * sizeof pointer);
    const uint8_t* bytes = finder.Find(pointer);
    if (bytes == nullptr) {
      bytes = FindElsewhere(space, window, pointer);
      if (bytes == nullptr) {
        bytes = kZeroes;
        elsewhere |= uint64_t{1} << i;
      }
    }
    __builtin_prefetch(bytes);
    found[i] = bytes;
  }
  return elsewhere;
}

template <size_t kSize>
void CopyColumn(uint8_t* __restrict cells, const uint8_t* const* __restrict windows, size_t offset,
                size_t count) {
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    std::memcpy(cells + i * kSize, windows[i] + offset, kSize);
    std::memcpy(cells + (i + 1) * kSize, windows[i + 1] + offset, kSize);
    std::memcpy(cells + (i + 2) * kSize, windows[i + 2] + offset, kSize);
    std::memcpy(cells + (i + 3) * kSize, windows[i + 3] + offset, kSize);
  }
  for (; i < count; ++i) std::memcpy(cells + i * kSize, windows[i] + offset, kSize);
}

void CopyColumn(uint8_t* cells, const uint8_t* const* windows, const ColumnWindow::Part& part,
                size_t count) {
  // The usual sizes as loads and stores of their own; a call of memcpy costs more than those.
  switch (part.size) {
    case 8:
      return CopyColumn<8>(cells, windows, part.offset, count);
    case 4:
      return CopyColumn<4>(cells, windows, part.offset, count);
    case 16:
      return CopyColumn<16>(cells, windows, part.offset, count);
    default:
      for (size_t i = 0; i < count; ++i)
        std::memcpy(cells + i * part.size, windows[i] + part.offset, part.size);
  }
}

// Memory that is mapped: plain loads. Only trivial objects live in here, SIGBUS jumps out of it.
// Not inlined, since where sigsetjmp is called variables lie in memory.
[[gnu::noinline]] void GatherDirect(AddressSpace* space, const ColumnWindow* windows,
                                    size_t window_count, const Rows& rows, size_t count) {
  const uint8_t* found[Plan::kMaxColumns][kDirectBlock];
  uint64_t elsewhere[Plan::kMaxColumns];
  AddressSpace::FlatFinder finders[Plan::kMaxColumns];
  for (size_t w = 0; w < window_count; ++w)
    finders[w] = MakeFinder(space->WidestFlat(), windows[w]);
  for (size_t first = 0; first < count; first += kDirectBlock) {
    const size_t block = std::min(kDirectBlock, count - first);
    for (size_t w = 0; w < window_count;) {
      // All of one depth are found before any of them is copied.
      const size_t begin = w;
      for (; w < window_count && windows[w].depth == windows[begin].depth; ++w) {
        elsewhere[w] = FindWindows(space, finders[w], rows, windows[w], first, block, found[w]);
      }
      for (size_t k = begin; k < w; ++k) {
        for (const ColumnWindow::Part& part : windows[k].parts)
          CopyColumn(rows.Cell(first, part.column), found[k], part, block);
        for (uint64_t left = elsewhere[k]; left != 0; left &= left - 1) {
          const size_t row = first + static_cast<size_t>(__builtin_ctzll(left));
          uint64_t start;
          if (FindStart(rows, windows[k], row, &start))
            CopyParts(space, rows, windows[k], row, start);
        }
      }
    }
  }
}

// Memory that is read: one batch for all rows of a block, per depth.
class BatchGather {
 public:
  // `is_owner`: whether this is the thread that may use the page table.
  BatchGather(AddressSpace* space, const Rows& rows, bool is_owner, GatherScratch::Lane* lane)
      : space_(space),
        rows_(rows),
        is_owner_(is_owner),
        lane_(*lane),
        pieces_(lane->pieces),
        requests_(lane->requests),
        repeats_(lane->repeats),
        slots_(lane->slots) {}

  void Run(const ColumnWindow* windows, size_t window_count, size_t first, size_t end) {
    windows_ = windows;
    pieces_.clear();
    requests_.clear();
    repeats_.clear();
    any_fault_ = false;
    slots_.assign(kFirstSlots, kNone);
    last_request_.fill(0);
    for (size_t w = 0; w < window_count; ++w) AddWindows(w, first, end);
    ReadAll();
    if (any_fault_) ZeroFaulty(window_count, first, end);
    for (const Repeat& repeat : repeats_) CopyRow(windows[repeat.window], repeat.row);
  }

 private:
  static constexpr uint32_t kNone = GatherScratch::kNone;
  using Piece = GatherScratch::Piece;
  using Request = GatherScratch::Request;
  using Repeat = GatherScratch::Repeat;

  static constexpr size_t kFirstSlots = 256;
  // Between two requests of one element: to copy as much takes no longer than a second element.
  static constexpr uint64_t kMaxGap = 2048;

  // A window of all rows.
  void AddWindows(size_t w, size_t first, size_t end) {
    const ColumnWindow& window = windows_[w];
    // Of the row before, when it is read.
    bool has_last = false;
    uint64_t last = 0;
    for (size_t row = first; row < end; ++row) {
      uint64_t start;
      if (!FindStart(rows_, window, row, &start)) {
        ZeroParts(rows_, window, row);
        has_last = false;
      } else if (has_last && start == last) {
        // Children of one parent, threads with one set of credentials: what the row before has.
        repeats_.push_back({static_cast<uint32_t>(row), static_cast<uint32_t>(w)});
      } else if (AddWindow(w, row, start)) {
        has_last = true;
        last = start;
      } else {
        // What hangs on it is not followed.
        ZeroParts(rows_, window, row);
        lane_.left.push_back(static_cast<uint32_t>(row));
        has_last = false;
      }
    }
  }

  // false: it takes a page table, which this thread has not.
  bool AddWindow(size_t w, size_t row, uint64_t start) {
    const ColumnWindow& window = windows_[w];
    for (uint32_t offset = 0; offset < window.length;) {
      const uint64_t address = start + offset;
      AddressSpace::Run run;
      // Addresses wrap as pointers do, but nothing lies across 2^64.
      if (address == 0)
        window.ForPartsAcross(offset, [&](const auto& part) { SetFaulty(row, part.column); });
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
          static_cast<uint32_t>(std::min<uint64_t>(window.length - offset, run_length));
      if (is_mapped) {
        AddPiece({run.physical, static_cast<uint32_t>(row), length, static_cast<uint16_t>(w),
                  static_cast<uint16_t>(offset), kNone});
      } else {
        MarkFaulty(window, row, offset, offset + length);
      }
      offset += length;
    }
    return true;
  }

  void AddPiece(Piece piece) {
    const auto number = static_cast<uint32_t>(pieces_.size());
    Request& request = requests_[FindRequest(piece.window, piece.physical)];
    const uint64_t end = std::max(request.physical + request.length, piece.physical + piece.length);
    request.physical = std::min(request.physical, piece.physical);
    request.length = static_cast<uint32_t>(end - request.physical);
    piece.next = std::exchange(request.first_piece, number);
    pieces_.push_back(piece);
  }

  // Number of the request for the page of `physical`; a new one is empty.
  uint32_t FindRequest(size_t window, uint64_t physical) {
    const uint64_t page = physical / kPageSize;
    // What one row after the other points to was often made one after the other.
    uint32_t& last = last_request_[window];
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
    const size_t size = memory.parallel() ? GatherScratch::kBlock : GatherScratch::kSerialBlock;
    // A few are steps of a look-up, perhaps.
    const bool along = is_owner_ && requests_.size() <= size;
    for (size_t first = 0; first < requests_.size(); first += size)
      ReadBlock(first, std::min(size, requests_.size() - first), along);
  }

  void ReadBlock(size_t first, size_t count, bool along) {
    std::vector<ReadRequest>& reads = lane_.reads;
    std::vector<uint8_t>& buffer = lane_.buffer;
    Request* requests = requests_.data() + first;
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
    if (buffer.size() < bytes) buffer.resize(bytes);
    uint8_t* into = buffer.data();
    for (ReadRequest& read : reads) {
      read.into = into;
      into += read.length;
    }
    if (along) {
      space_->CopyBatch(reads.data(), reads.size());
    } else {
      space_->memory()->CopyBlock(reads.data(), reads.size());
    }
    const Request* request = requests;
    for (const ReadRequest& read : reads) {
      for (; request != requests + count && request->physical - read.physical < read.length;
           ++request) {
        const auto skipped = static_cast<size_t>(request->physical - read.physical);
        ReadRequest part{request->physical, read.into + skipped, request->length, 0};
        if (read.transferred > skipped)
          part.transferred = std::min<size_t>(read.transferred - skipped, request->length);
        // A read ends at the first page that cannot be read; this one may lie behind it.
        if (read.transferred < skipped) space_->memory()->CopyBlock(&part, 1);
        for (uint32_t p = request->first_piece; p != kNone; p = pieces_[p].next)
          Scatter(pieces_[p], part);
      }
    }
  }

  void Scatter(const Piece& piece, const ReadRequest& request) {
    const ColumnWindow& window = windows_[piece.window];
    const auto within = static_cast<size_t>(piece.physical - request.physical);
    const uint8_t* from = request.into + within;
    const size_t left = request.transferred > within ? request.transferred - within : 0;
    const auto readable = static_cast<uint32_t>(std::min<size_t>(left, piece.length));
    if (window.parts.size() == 1 && readable == window.length) {
      Store(rows_.Cell(piece.row, window.parts[0].column), from, readable);
      return;
    }
    const uint32_t piece_end = piece.offset + readable;
    for (const ColumnWindow::Part& part : window.parts) {
      const uint32_t start = std::max<uint32_t>(part.offset, piece.offset);
      const uint32_t end = std::min<uint32_t>(part.offset + part.size, piece_end);
      if (start >= end) continue;
      std::memcpy(rows_.Cell(piece.row, part.column) + (start - part.offset),
                  from + (start - piece.offset), end - start);
    }
    if (readable < piece.length)
      MarkFaulty(window, piece.row, piece_end, piece.offset + piece.length);
  }

  static void Store(uint8_t* cell, const uint8_t* from, uint32_t size) {
    switch (size) {
      case 8:
        std::memcpy(cell, from, 8);
        return;
      case 4:
        std::memcpy(cell, from, 4);
        return;
      default:
        std::memcpy(cell, from, size);
    }
  }

  void ZeroFaulty(size_t window_count, size_t first, size_t end) {
    for (size_t row = first; row < end; ++row) {
      for (size_t w = 0; w < window_count; ++w) {
        for (const ColumnWindow::Part& part : windows_[w].parts) {
          if (rows_.IsFaulty(row, part.column))
            std::memset(rows_.Cell(row, part.column), 0, part.size);
        }
      }
    }
  }

  // The cells of a window, and what is faulty of them, from the row before.
  void CopyRow(const ColumnWindow& window, size_t row) {
    for (const ColumnWindow::Part& part : window.parts) {
      Store(rows_.Cell(row, part.column), rows_.Cell(row - 1, part.column), part.size);
      if (rows_.IsFaulty(row - 1, part.column)) SetFaulty(row, part.column);
    }
  }

  // Columns that need a byte of [from, end) of the window.
  void MarkFaulty(const ColumnWindow& window, size_t row, uint32_t from, uint32_t end) {
    window.ForParts(from, end, [&](const auto& part) { SetFaulty(row, part.column); });
  }
  void SetFaulty(size_t row, size_t column) {
    rows_.SetFaulty(row, column);
    any_fault_ = true;
  }

  AddressSpace* space_;
  const Rows& rows_;
  bool is_owner_;
  const ColumnWindow* windows_ = nullptr;
  GatherScratch::Lane& lane_;
  std::vector<Piece>& pieces_;
  std::vector<Request>& requests_;
  std::vector<Repeat>& repeats_;
  std::vector<uint32_t>& slots_;
  // Of each window: the request of the last piece.
  std::array<uint32_t, Plan::kMaxColumns> last_request_{};
  bool any_fault_ = false;
};

// The first window of `depth` or more.
size_t FirstAtDepth(const Plan& plan, int depth) {
  const std::vector<ColumnWindow>& windows = plan.windows();
  const auto first =
      std::find_if(windows.begin(), windows.end(),
                   [depth](const ColumnWindow& window) { return window.depth >= depth; });
  return static_cast<size_t>(first - windows.begin());
}

// Rows [first, end) of `rows`, one depth after the other.
void GatherDepths(const Plan& plan, int first_depth, int last_depth, size_t first, size_t end,
                  BatchGather* batch) {
  for (int depth = first_depth; depth <= last_depth; ++depth) {
    const size_t window = FirstAtDepth(plan, depth);
    const size_t window_count = FirstAtDepth(plan, depth + 1) - window;
    // Bounded memory however many rows there are.
    constexpr size_t kMaxWindows = size_t{1} << 16;
    const size_t block = std::max<size_t>(1, kMaxWindows / std::max<size_t>(1, window_count));
    for (size_t row = first; row < end; row += block) {
      batch->Run(plan.windows().data() + window, window_count, row, std::min(end, row + block));
    }
  }
}

// Takes back what a gather said of columns of `first_depth` and more.
void ClearFaults(const Plan& plan, const Rows& rows, size_t row, int first_depth) {
  uint32_t mask;
  std::memcpy(&mask, rows.masks + row * sizeof mask, sizeof mask);
  for (size_t k = 0; k < plan.columns().size(); ++k) {
    if (plan.columns()[k].depth >= first_depth) mask &= ~(uint32_t{1} << k);
  }
  std::memcpy(rows.masks + row * sizeof mask, &mask, sizeof mask);
}

void GatherMapped(AddressSpace* space, const Plan& plan, const Rows& rows, size_t count,
                  int first_depth) {
  const size_t first = FirstAtDepth(plan, first_depth);
  const ColumnWindow* windows = plan.windows().data() + first;
  const size_t window_count = plan.windows().size() - first;
  if (WithBusGuard([&] { GatherDirect(space, windows, window_count, rows, count); })) return;
  // A file was truncated under the mapping. Again, with a guard around every copy; the jump may
  // have left a translation half-written.
  space->Flush();
  for (size_t row = 0; row < count; ++row) {
    for (size_t w = 0; w < window_count; ++w) {
      uint64_t start;
      if (FindStart(rows, windows[w], row, &start)) {
        CopyParts(space, rows, windows[w], row, start);
      } else {
        ZeroParts(rows, windows[w], row);
      }
    }
  }
}

// On two threads, then what they left.
void GatherParallel(AddressSpace* space, const Plan& plan, const RowBuffer& buffer,
                    size_t first_row, size_t count, int first_depth) {
  constexpr size_t kBlock = GatherScratch::kBlock;
  auto& lanes = space->gather_scratch()->lanes;
  for (GatherScratch::Lane& lane : lanes) lane.left.clear();
  space->memory()->ForBlocks((count + kBlock - 1) / kBlock, [&](size_t block, int thread) {
    const size_t first = block * kBlock;
    GatherBlock(space, plan, buffer, first_row + first, first_row + std::min(count, first + kBlock),
                first_depth, &lanes[static_cast<size_t>(thread)]);
  });
  std::vector<uint32_t> left;
  for (GatherScratch::Lane& lane : lanes)
    left.insert(left.end(), lane.left.begin(), lane.left.end());
  std::sort(left.begin(), left.end());
  left.erase(std::unique(left.begin(), left.end()), left.end());
  const Rows rows(plan, buffer, 0);
  BatchGather batch(space, rows, true, &lanes[0]);
  for (size_t i = 0; i < left.size();) {
    const size_t first = left[i];
    size_t end = first;
    for (; i < left.size() && left[i] == end; ++i) ClearFaults(plan, rows, end++, first_depth);
    GatherDepths(plan, first_depth, plan.max_depth(), first, end, &batch);
  }
}

}  // namespace

void GatherBlock(AddressSpace* space, const Plan& plan, const RowBuffer& buffer, size_t first,
                 size_t end, int first_depth, GatherScratch::Lane* lane) {
  const Rows rows(plan, buffer, 0);
  BatchGather batch(space, rows, false, lane);
  GatherDepths(plan, first_depth, plan.max_depth(), first, end, &batch);
}

void GatherColumns(AddressSpace* space, const Plan& plan, const RowBuffer& buffer, size_t first,
                   size_t end, int first_depth) {
  const size_t count = end - first;
  if (space->memory()->mapped())
    return GatherMapped(space, plan, Rows(plan, buffer, first), count, first_depth);
  if (space->memory()->parallel() && count > GatherScratch::kBlock) {
    return GatherParallel(space, plan, buffer, first, count, first_depth);
  }
  const Rows rows(plan, buffer, 0);
  BatchGather batch(space, rows, true, &space->gather_scratch()->lanes[0]);
  GatherDepths(plan, first_depth, plan.max_depth(), first, end, &batch);
}

namespace {

// Rows whose bases are there.
Status GatherBased(AddressSpace* space, const Plan& plan, size_t count, const RowBuffer& rows,
                   size_t first) {
  const ReadPaths::Along along(space->paths());
  std::memset(rows.bytes + first * sizeof(uint32_t), 0, count * sizeof(uint32_t));
  GatherColumns(space, plan, rows, first, first + count, 0);
  return space->memory()->Check();
}

uint8_t* Bases(const Plan& plan, const RowBuffer& rows, size_t first) {
  return rows.bytes + RowLayout(plan, rows.capacity).bases + first * sizeof(uint64_t);
}

}  // namespace

Status Gather(AddressSpace* space, const Plan& plan, const uint64_t* bases, size_t count,
              const RowBuffer& rows, size_t first) {
  Status status = space->memory()->Check();
  if (!status.ok()) return status;
  if (count == 0) return {};
  std::memmove(Bases(plan, rows, first), bases, count * sizeof *bases);
  return GatherBased(space, plan, count, rows, first);
}

Status GatherNodes(AddressSpace* space, const Plan& plan, const uint64_t* nodes, size_t count,
                   uint64_t link, const RowBuffer& rows, size_t first) {
  Status status = space->memory()->Check();
  if (!status.ok()) return status;
  uint8_t* bases = Bases(plan, rows, first);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t base = nodes[i] - link;
    std::memcpy(bases + i * sizeof base, &base, sizeof base);
  }
  return GatherBased(space, plan, count, rows, first);
}

}  // namespace vmi
