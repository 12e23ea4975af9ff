// What a gather reads at each row, and how rows lie in one buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/result.h"

namespace vmi {

// `size` bytes at `offset` from the row's base (`from` = -1) or from the pointer in column `from`.
struct Column {
  int32_t from = -1;
  int32_t offset = 0;
  uint32_t size = 0;
  // Pointers between the row's base and the column.
  int depth = 0;
};

// Columns that hang on one pointer and lie close together: one read, one translation.
struct ColumnWindow {
  struct Part {
    uint8_t column = 0;
    uint16_t offset = 0;  // in the window
    uint16_t size = 0;
  };
  int32_t from = -1;
  int32_t offset = 0;
  uint32_t length = 0;
  int depth = 0;
  std::vector<Part> parts;

  // Calls `visit` for every part that needs a byte of [from, end) of the window.
  template <typename Visit>
  void ForParts(uint32_t from, uint32_t end, Visit visit) const {
    for (const Part& part : parts) {
      if (part.offset < end && from < uint32_t{part.offset} + part.size) visit(part);
    }
  }
  // … and for every part that lies on both sides of `at`.
  template <typename Visit>
  void ForPartsAcross(uint32_t at, Visit visit) const {
    for (const Part& part : parts) {
      if (part.offset < at && at < uint32_t{part.offset} + part.size) visit(part);
    }
  }
};

// What nearly all rows hold: min <= (value & mask) <= min + span, unsigned. A column of 4 or 8
// bytes.
struct Expectation {
  uint32_t column = 0;
  uint64_t mask = 0;
  uint64_t min = 0;
  // Below 2^63.
  uint64_t span = 0;
};

class Plan {
 public:
  static constexpr size_t kMaxColumns = 32;
  static constexpr size_t kMaxExpectations = 32;
  static constexpr uint32_t kMaxSize = 4096;
  // Of a ColumnWindow: more is dearer to copy than another element of a batch is to read.
  static constexpr uint32_t kMaxWindow = 4096;

  // Triples (from, offset, size); kMisuse for what NativeRows cannot hold.
  static Result<std::unique_ptr<Plan>> Create(const int32_t* triples, size_t count);

  // Quadruples (column, mask, min, max).
  Status Expect(const uint64_t* quadruples, size_t count);

  const std::vector<Column>& columns() const { return columns_; }
  // By depth, so that a pointer is read before what hangs on it.
  const std::vector<ColumnWindow>& windows() const { return windows_; }
  int max_depth() const { return max_depth_; }
  const std::vector<Expectation>& expectations() const { return expectations_; }

  // Windows of the columns at one depth of `columns`; the indices of their parts are those of
  // `columns`.
  static std::vector<ColumnWindow> MakeWindows(const std::vector<Column>& columns, int depth);

 private:
  std::vector<Column> columns_;
  std::vector<ColumnWindow> windows_;
  int max_depth_ = 0;
  std::vector<Expectation> expectations_;
};

// No rows are larger: a guest can make a list as long as its memory allows.
constexpr uint64_t kMaxRowBytes = uint64_t{1} << 30;

// Offsets in the buffer of NativeRows with room for `count` rows.
struct RowLayout {
  RowLayout(const Plan& plan, uint64_t count);
  uint64_t bases = 0;
  uint64_t columns[Plan::kMaxColumns] = {};
  uint64_t total = 0;
};

// A buffer that is laid out for `capacity` rows.
struct RowBuffer {
  uint8_t* bytes = nullptr;
  size_t capacity = 0;
};

// As many rows as `length` bytes have room for.
size_t RowsThatFit(const Plan& plan, uint64_t length);

// Numbers of the first `count` rows that have a fault or are not as expected, ascending. `into`:
// room for `count`. Returns how many.
size_t FindUnexpected(const Plan& plan, const RowBuffer& rows, size_t count, uint32_t* into);

}  // namespace vmi
