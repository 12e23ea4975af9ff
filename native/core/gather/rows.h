// The rows of a buffer as plain pointers, one for each column: usable under a BusGuard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/gather/plan.h"
#include "core/gather/row_layout.h"

namespace vmi {

struct Rows {
  // Row 0 is row `first` of the buffer.
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
  bool IsFaulty(size_t row, size_t column) const { return (Mask(row) >> column & 1) != 0; }
  void SetFaulty(size_t row, size_t column) const {
    SetMask(row, Mask(row) | uint32_t{1} << column);
  }
  uint32_t Mask(size_t row) const {
    uint32_t mask;
    std::memcpy(&mask, masks + row * sizeof mask, sizeof mask);
    return mask;
  }
  void SetMask(size_t row, uint32_t mask) const {
    std::memcpy(masks + row * sizeof mask, &mask, sizeof mask);
  }

  // Where a group of a row starts; false where its pointer is NULL: that leads to zeroes and is no
  // fault. A pointer that could not be read is zero, too, and has a fault bit of its own.
  bool FindStart(const ColumnGroup& group, size_t row, uint64_t* start) const {
    uint64_t pointer;
    if (group.from < 0) {
      pointer = Base(row);
    } else {
      pointer = Pointer(row, static_cast<size_t>(group.from));
      if (pointer == 0) return false;
    }
    *start = pointer + static_cast<uint64_t>(int64_t{group.offset});
    return true;
  }

  void ZeroGroup(const ColumnGroup& group, size_t row) const {
    for (const ColumnGroup::Part& part : group.parts)
      std::memset(Cell(row, part.column), 0, part.size);
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

}  // namespace vmi
