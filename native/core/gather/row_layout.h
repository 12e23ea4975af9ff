// How rows lie in one buffer: as columns, in an order that JavaScript knows too (NativeRows of
// types/addon.d.ts).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/gather/plan.h"

namespace vmi {

// No rows are larger: a guest can make a list as long as its memory allows.
constexpr uint64_t kMaxRowBytes = uint64_t{1} << 30;

// Offsets of the parts of a buffer for `count` rows. The fault masks are at 0.
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

  bool operator==(const RowBuffer& other) const {
    return bytes == other.bytes && capacity == other.capacity;
  }
};

// The most rows for which a buffer of `length` bytes can be laid out.
size_t RowsThatFit(const Plan& plan, uint64_t length);

// Numbers of the first `count` rows that have a fault or are not as expected, ascending. `into`
// takes up to `count`. Returns how many there are.
size_t FindUnexpected(const Plan& plan, const RowBuffer& rows, size_t count, uint32_t* into);

}  // namespace vmi
