#include "gather.h"

#include <cstring>

#include <algorithm>
#include <vector>

#include "bus_guard.h"

namespace vmi {

namespace {

// The rows being filled, as plain pointers: usable under a BusGuard.
struct Rows {
  Rows(const Plan& plan, size_t count, uint8_t* buffer) : masks(buffer) {
    const RowLayout layout(plan, count);
    bases = buffer + layout.bases;
    for (size_t k = 0; k < plan.columns().size(); ++k) {
      columns[k] = buffer + layout.columns[k];
      sizes[k] = plan.columns()[k].size;
    }
  }

  uint8_t* Cell(size_t row, size_t column) const { return columns[column] + row * sizes[column]; }
  uint64_t Base(size_t row) const { return Load(bases + row * sizeof(uint64_t)); }
  uint64_t Pointer(size_t row, size_t column) const { return Load(columns[column] + row * sizeof(uint64_t)); }
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

// A NULL pointer leads to zeroes that are not a fault; so does one that could not be read, whose own bit says it.
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
  for (const ColumnWindow::Part& part : window.parts) std::memset(rows.Cell(row, part.column), 0, part.size);
}

// Column by column, each as far as it goes: where a window cannot be loaded in one piece.
void CopyParts(AddressSpace* space, const Rows& rows, const ColumnWindow& window, size_t row, uint64_t start) {
  for (const ColumnWindow::Part& part : window.parts) {
    uint8_t* cell = rows.Cell(row, part.column);
    int level;
    if (space->Copy(start + part.offset, cell, part.size, &level) == part.size) continue;
    std::memset(cell, 0, part.size);
    rows.SetFaulty(row, part.column);
  }
}

// Rows whose windows are found before any of their columns is copied: enough for their cache misses to overlap.
constexpr size_t kDirectBlock = 64;

template <size_t kSize>
void CopyColumn(uint8_t* cells, const uint8_t* const* windows, size_t offset, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (windows[i] != nullptr) std::memcpy(cells + i * kSize, windows[i] + offset, kSize);
  }
}

void CopyColumn(uint8_t* cells, const uint8_t* const* windows, const ColumnWindow::Part& part, size_t count) {
  // The usual sizes as loads and stores of their own; a call of memcpy costs more than those.
  switch (part.size) {
    case 8:
      return CopyColumn<8>(cells, windows, part.offset, count);
    case 4:
      return CopyColumn<4>(cells, windows, part.offset, count);
    case 16:
      return CopyColumn<16>(cells, windows, part.offset, count);
    default:
      for (size_t i = 0; i < count; ++i) {
        if (windows[i] != nullptr) std::memcpy(cells + i * part.size, windows[i] + part.offset, part.size);
      }
  }
}

// Memory that is mapped: plain loads. Only trivial objects live in here, SIGBUS jumps out of it.
void GatherDirect(AddressSpace* space, const ColumnWindow* windows, size_t window_count, const Rows& rows,
                  size_t count) {
  // Windows of one depth that are found before any of them is copied.
  constexpr size_t kGroup = 8;
  const uint8_t* found[kGroup][kDirectBlock];
  for (size_t first = 0; first < count; first += kDirectBlock) {
    const size_t block = std::min(kDirectBlock, count - first);
    for (size_t done = 0; done < window_count;) {
      size_t group = 0;
      for (; group < kGroup && done + group < window_count; ++group) {
        const ColumnWindow& window = windows[done + group];
        if (window.depth != windows[done].depth) break;
        for (size_t i = 0; i < block; ++i) {
          const size_t row = first + i;
          uint64_t start;
          found[group][i] = nullptr;
          if (!FindStart(rows, window, row, &start)) {
            ZeroParts(rows, window, row);
            continue;
          }
          const uint8_t* bytes = space->Direct(start, window.length);
          found[group][i] = bytes;
          if (bytes == nullptr) {
            CopyParts(space, rows, window, row, start);
          } else {
            __builtin_prefetch(bytes);
          }
        }
      }
      for (size_t g = 0; g < group; ++g) {
        for (const ColumnWindow::Part& part : windows[done + g].parts) {
          CopyColumn(rows.Cell(first, part.column), found[g], part, block);
        }
      }
      done += group;
    }
  }
}

// Memory that is read: one batch for all rows of a block, per depth.
class BatchGather {
 public:
  BatchGather(AddressSpace* space, const Rows& rows) : space_(space), rows_(rows) {}

  void Run(const ColumnWindow* windows, size_t window_count, size_t first, size_t end) {
    pieces_.clear();
    for (size_t row = first; row < end; ++row) {
      for (size_t w = 0; w < window_count; ++w) AddWindow(windows, w, row);
    }
    ReadPieces();
    for (const Piece& piece : pieces_) Scatter(windows[piece.window], piece);
    for (size_t row = first; row < end; ++row) {
      for (size_t w = 0; w < window_count; ++w) {
        for (const ColumnWindow::Part& part : windows[w].parts) {
          if (rows_.IsFaulty(row, part.column)) std::memset(rows_.Cell(row, part.column), 0, part.size);
        }
      }
    }
  }

 private:
  // What of a window lies in one page.
  struct Piece {
    uint64_t physical = 0;
    size_t row = 0;
    uint16_t window = 0;
    uint16_t offset = 0;  // in the window
    uint32_t length = 0;
    // Where ReadPieces put it, and how much of it could be read.
    size_t at = 0;
    uint32_t readable = 0;
  };

  void AddWindow(const ColumnWindow* windows, size_t w, size_t row) {
    const ColumnWindow& window = windows[w];
    uint64_t start;
    if (!FindStart(rows_, window, row, &start)) {
      ZeroParts(rows_, window, row);
      return;
    }
    for (uint32_t offset = 0; offset < window.length;) {
      const uint64_t address = start + offset;
      AddressSpace::Run run;
      // Addresses wrap as pointers do, but nothing lies across 2^64.
      if (address == 0) window.ForPartsAcross(offset, [&](const auto& part) { rows_.SetFaulty(row, part.column); });
      const bool is_mapped = space_->Resolve(address, &run) == AddressSpace::kResolved;
      uint64_t run_length = kPageSize - (address & kPageMask);
      if (is_mapped) run_length = std::min(run.length, kPageSize - (run.physical & kPageMask));
      const auto length = static_cast<uint32_t>(std::min<uint64_t>(window.length - offset, run_length));
      if (is_mapped) {
        pieces_.push_back({run.physical, row, static_cast<uint16_t>(w), static_cast<uint16_t>(offset), length, 0, 0});
      } else {
        MarkFaulty(window, row, offset, offset + length);
      }
      offset += length;
    }
  }

  // Many rows point to the same thing (credentials, a parent, the page of a PGD), or to neighbours:
  // every byte is read once, and near ones of a page in one element: an element takes as long as copying some pages.
  void ReadPieces() {
    constexpr uint64_t kNear = 2048;
    std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) { return a.physical < b.physical; });
    requests_.clear();
    size_t bytes = 0;
    for (Piece& piece : pieces_) {
      const uint64_t page = piece.physical & ~kPageMask;
      if (!requests_.empty()) {
        ReadRequest& request = requests_.back();
        const uint64_t end = request.physical + request.length;
        if ((request.physical & ~kPageMask) == page && piece.physical <= end + kNear) {
          const uint64_t piece_end = piece.physical + piece.length;
          if (piece_end > end) {
            request.length += static_cast<size_t>(piece_end - end);
            bytes += static_cast<size_t>(piece_end - end);
          }
          piece.at = requests_.size() - 1;
          continue;
        }
      }
      requests_.push_back({piece.physical, nullptr, piece.length, 0});
      bytes += piece.length;
      piece.at = requests_.size() - 1;
    }
    buffer_.resize(bytes);
    size_t at = 0;
    for (ReadRequest& request : requests_) {
      request.into = buffer_.data() + at;
      at += request.length;
    }
    space_->memory()->Refresh();
    space_->CopyBatch(requests_.data(), requests_.size());
    for (Piece& piece : pieces_) {
      const ReadRequest& request = requests_[piece.at];
      const auto within = static_cast<size_t>(piece.physical - request.physical);
      const size_t left = request.transferred > within ? request.transferred - within : 0;
      piece.readable = static_cast<uint32_t>(std::min<size_t>(left, piece.length));
      piece.at = static_cast<size_t>(request.into - buffer_.data()) + within;
    }
  }

  void Scatter(const ColumnWindow& window, const Piece& piece) {
    const uint32_t piece_end = piece.offset + piece.readable;
    for (const ColumnWindow::Part& part : window.parts) {
      const uint32_t from = std::max<uint32_t>(part.offset, piece.offset);
      const uint32_t end = std::min<uint32_t>(part.offset + part.size, piece_end);
      if (from >= end) continue;
      std::memcpy(rows_.Cell(piece.row, part.column) + (from - part.offset),
                  buffer_.data() + piece.at + (from - piece.offset), end - from);
    }
    if (piece.readable < piece.length) MarkFaulty(window, piece.row, piece_end, piece.offset + piece.length);
  }

  // Columns that need a byte of [from, end) of the window.
  void MarkFaulty(const ColumnWindow& window, size_t row, uint32_t from, uint32_t end) {
    window.ForParts(from, end, [&](const auto& part) { rows_.SetFaulty(row, part.column); });
  }

  AddressSpace* space_;
  const Rows& rows_;
  std::vector<Piece> pieces_;
  std::vector<ReadRequest> requests_;
  std::vector<uint8_t> buffer_;
};

}  // namespace

void GatherColumns(AddressSpace* space, const Plan& plan, size_t count, uint8_t* buffer, int first_depth) {
  const Rows rows(plan, count, buffer);
  const std::vector<ColumnWindow>& windows = plan.windows();
  const auto at_depth = [&](int depth) {
    return static_cast<size_t>(std::find_if(windows.begin(), windows.end(),
                                            [depth](const ColumnWindow& window) { return window.depth >= depth; }) -
                               windows.begin());
  };

  if (space->memory()->mapped()) {
    const size_t first = at_depth(first_depth);
    const ColumnWindow* of_depth = windows.data() + first;
    const size_t window_count = windows.size() - first;
    if (WithBusGuard([&] { GatherDirect(space, of_depth, window_count, rows, count); })) return;
    // A file was truncated under the mapping. Again, with a guard around every copy; the jump may
    // have left a translation half-written.
    space->Flush();
    for (size_t row = 0; row < count; ++row) {
      for (size_t w = 0; w < window_count; ++w) {
        uint64_t start;
        if (FindStart(rows, of_depth[w], row, &start)) {
          CopyParts(space, rows, of_depth[w], row, start);
        } else {
          ZeroParts(rows, of_depth[w], row);
        }
      }
    }
    return;
  }

  BatchGather batch(space, rows);
  for (int depth = first_depth; depth <= plan.max_depth(); ++depth) {
    const size_t first = at_depth(depth);
    const size_t end = at_depth(depth + 1);
    size_t row_bytes = 0;
    for (size_t w = first; w < end; ++w) row_bytes += windows[w].length;
    // Bounded memory however many rows there are.
    constexpr size_t kBlockBytes = size_t{8} << 20;
    const size_t block = std::max<size_t>(1, kBlockBytes / std::max<size_t>(1, row_bytes));
    for (size_t row = 0; row < count; row += block) {
      batch.Run(windows.data() + first, end - first, row, std::min(count, row + block));
    }
  }
}

Status Gather(AddressSpace* space, const Plan& plan, const uint64_t* bases, size_t count, uint8_t* rows) {
  Status status = space->memory()->Check();
  if (!status.ok()) return status;
  if (count == 0) return {};
  const ReadPaths::Along along(space->paths());
  const RowLayout layout(plan, count);
  std::memmove(rows + layout.bases, bases, count * sizeof *bases);
  std::memset(rows, 0, count * sizeof(uint32_t));
  GatherColumns(space, plan, count, rows, 0);
  return space->memory()->Check();
}

}  // namespace vmi
