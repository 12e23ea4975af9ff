// What a gather reads at each row.
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
struct ColumnGroup {
  struct Part {
    uint8_t column = 0;
    uint16_t offset = 0;  // in the group
    uint16_t size = 0;
  };
  int32_t from = -1;
  int32_t offset = 0;
  uint32_t length = 0;
  int depth = 0;
  std::vector<Part> parts;

  // Calls `visit` for every part that needs a byte of [from, end) of the group.
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
  // Bytes of a ColumnGroup. To copy more costs more than to read another element of a batch.
  static constexpr uint32_t kMaxGroup = 4096;

  // Triples (from, offset, size); kMisuse for what NativeRows cannot hold.
  static Result<std::unique_ptr<Plan>> Create(const int32_t* triples, size_t count);

  // Quadruples (column, mask, min, max).
  Status Expect(const uint64_t* quadruples, size_t count);

  const std::vector<Column>& columns() const { return columns_; }
  // By depth, so that a pointer is read before what hangs on it.
  const std::vector<ColumnGroup>& groups() const { return groups_; }
  int max_depth() const { return max_depth_; }
  const std::vector<Expectation>& expectations() const { return expectations_; }

  // This plan with one more column at the row's base. Fewer than kMaxColumns are there.
  Plan With(int32_t offset, uint32_t size) const;

 private:
  void MakeGroups();
  void AddGroups(int depth);

  std::vector<Column> columns_;
  std::vector<ColumnGroup> groups_;
  int max_depth_ = 0;
  std::vector<Expectation> expectations_;
};

}  // namespace vmi
