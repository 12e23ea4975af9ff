#include "core/gather/row_layout.h"

#include <cstring>

#include <algorithm>

namespace vmi {

namespace {

uint64_t RoundUp8(uint64_t value) { return (value + 7) & ~uint64_t{7}; }

template <typename T>
void AddDoubts(const uint8_t* cells, const Expectation& expected, size_t count,
               uint64_t* __restrict doubts) {
  const auto [column, mask, min, span] = expected;
  for (size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, cells + i * sizeof value, sizeof value);
    const uint64_t above = (uint64_t{value} & mask) - min;
    // The top bit of one of the two is set where the value is not within the span. Without a
    // branch, the compiler handles two rows at a time.
    doubts[i] |= above | (span - above);
  }
}

}  // namespace

RowLayout::RowLayout(const Plan& plan, uint64_t count) {
  bases = RoundUp8(count * sizeof(uint32_t));
  total = bases + count * sizeof(uint64_t);
  for (size_t k = 0; k < plan.columns().size(); ++k) {
    columns[k] = RoundUp8(total);
    total = columns[k] + count * plan.columns()[k].size;
  }
}

size_t RowsThatFit(const Plan& plan, uint64_t length) {
  uint64_t row_bytes = sizeof(uint32_t) + sizeof(uint64_t);
  for (const Column& column : plan.columns()) row_bytes += column.size;
  uint64_t count = length / row_bytes;
  while (count > 0 && RowLayout(plan, count).total > length) --count;
  return static_cast<size_t>(count);
}

size_t FindUnexpected(const Plan& plan, const RowBuffer& rows, size_t count, uint32_t* into) {
  constexpr size_t kBlock = 256;
  uint64_t doubts[kBlock];
  const RowLayout layout(plan, rows.capacity);
  size_t found = 0;
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t block = std::min(kBlock, count - first);
    for (size_t i = 0; i < block; ++i) {
      uint32_t mask;
      std::memcpy(&mask, rows.bytes + (first + i) * sizeof mask, sizeof mask);
      doubts[i] = 0 - uint64_t{mask};
    }
    for (const Expectation& expected : plan.expectations()) {
      const uint32_t size = plan.columns()[expected.column].size;
      const uint8_t* cells = rows.bytes + layout.columns[expected.column] + first * size;
      if (size == 8) {
        AddDoubts<uint64_t>(cells, expected, block, doubts);
      } else {
        AddDoubts<uint32_t>(cells, expected, block, doubts);
      }
    }
    // The loop below looks at four rows at a time: those beyond the block are in no doubt.
    for (size_t i = block; i % 4 != 0; ++i) doubts[i] = 0;
    for (size_t i = 0; i < block; i += 4) {
      if (((doubts[i] | doubts[i + 1] | doubts[i + 2] | doubts[i + 3]) >> 63) == 0) continue;
      for (size_t k = i; k < i + 4; ++k) {
        if (doubts[k] >> 63 != 0) into[found++] = static_cast<uint32_t>(first + k);
      }
    }
  }
  return found;
}

}  // namespace vmi
