#include "core/gather/plan.h"

#include <cstring>

#include <algorithm>
#include <string>
#include <utility>

namespace vmi {

namespace {

uint64_t RoundUp8(uint64_t value) { return (value + 7) & ~uint64_t{7}; }

}  // namespace

Result<std::unique_ptr<Plan>> Plan::Create(const int32_t* triples, size_t count) {
  if (count % 3 != 0 || count == 0 || count / 3 > kMaxColumns) {
    return {Code::kMisuse, "Expected columns as 1 to " + std::to_string(kMaxColumns) +
                               " triples (from, offset, size) but received " +
                               std::to_string(count) + " numbers"};
  }
  auto plan = std::make_unique<Plan>();
  for (size_t k = 0; k < count / 3; ++k) {
    const int32_t from = triples[k * 3];
    const int32_t offset = triples[k * 3 + 1];
    const int32_t size = triples[k * 3 + 2];
    const std::string where = "column " + std::to_string(k);
    if (from < -1 || from >= static_cast<int32_t>(k)) {
      return {Code::kMisuse, "Expected " + where +
                                 " to start from -1 or an earlier column but received " +
                                 std::to_string(from)};
    }
    if (from >= 0 && plan->columns_[static_cast<size_t>(from)].size != 8) {
      return {Code::kMisuse, "Expected " + where +
                                 " to start from a column of 8 bytes but received one of " +
                                 std::to_string(plan->columns_[static_cast<size_t>(from)].size)};
    }
    if (size < 1 || size > static_cast<int32_t>(kMaxSize)) {
      return {Code::kMisuse, "Expected " + where + " of 1 to " + std::to_string(kMaxSize) +
                                 " bytes but received " + std::to_string(size)};
    }
    const int depth = from < 0 ? 0 : plan->columns_[static_cast<size_t>(from)].depth + 1;
    plan->columns_.push_back({from, offset, static_cast<uint32_t>(size), depth});
    plan->max_depth_ = std::max(plan->max_depth_, depth);
  }
  for (int depth = 0; depth <= plan->max_depth_; ++depth) {
    for (ColumnWindow& window : MakeWindows(plan->columns_, depth))
      plan->windows_.push_back(std::move(window));
  }
  return plan;
}

std::vector<ColumnWindow> Plan::MakeWindows(const std::vector<Column>& columns, int depth) {
  std::vector<uint8_t> order;
  for (size_t k = 0; k < columns.size(); ++k) {
    if (columns[k].depth == depth) order.push_back(static_cast<uint8_t>(k));
  }
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) {
    if (columns[a].from != columns[b].from) return columns[a].from < columns[b].from;
    return columns[a].offset < columns[b].offset;
  });
  std::vector<ColumnWindow> windows;
  for (const uint8_t k : order) {
    const Column& column = columns[k];
    if (!windows.empty()) {
      ColumnWindow& window = windows.back();
      const int64_t from_start = int64_t{column.offset} - window.offset;
      if (window.from == column.from && from_start + column.size <= kMaxWindow) {
        window.length = std::max(window.length, static_cast<uint32_t>(from_start) + column.size);
        window.parts.push_back(
            {k, static_cast<uint16_t>(from_start), static_cast<uint16_t>(column.size)});
        continue;
      }
    }
    windows.push_back({column.from,
                       column.offset,
                       column.size,
                       depth,
                       {{k, 0, static_cast<uint16_t>(column.size)}}});
  }
  return windows;
}

Status Plan::Expect(const uint64_t* quadruples, size_t count) {
  if (count % 4 != 0 || count / 4 > kMaxExpectations) {
    return {Code::kMisuse, "Expected expectations as up to " + std::to_string(kMaxExpectations) +
                               " quadruples (column, mask, min, max) but received " +
                               std::to_string(count) + " numbers"};
  }
  expectations_.clear();
  for (const uint64_t* at = quadruples; at != quadruples + count; at += 4) {
    const std::string where = "expectation " + std::to_string((at - quadruples) / 4);
    if (at[0] >= columns_.size() || (columns_[at[0]].size != 4 && columns_[at[0]].size != 8)) {
      return {Code::kMisuse, "Expected " + where +
                                 " of a column of 4 or 8 bytes but received column " +
                                 std::to_string(at[0])};
    }
    if (at[3] < at[2] || at[3] - at[2] > INT64_MAX) {
      return {Code::kMisuse, "Expected " + where +
                                 " with a max less than 2^63 above its min but received " +
                                 Hex(at[2]) + " and " + Hex(at[3])};
    }
    expectations_.push_back({static_cast<uint32_t>(at[0]), at[1], at[2], at[3] - at[2]});
  }
  return {};
}

size_t RowsThatFit(const Plan& plan, uint64_t length) {
  uint64_t row_bytes = sizeof(uint32_t) + sizeof(uint64_t);
  for (const Column& column : plan.columns()) row_bytes += column.size;
  uint64_t count = length / row_bytes;
  while (count > 0 && RowLayout(plan, count).total > length) --count;
  return static_cast<size_t>(count);
}

RowLayout::RowLayout(const Plan& plan, uint64_t count) {
  bases = RoundUp8(count * sizeof(uint32_t));
  total = bases + count * sizeof(uint64_t);
  for (size_t k = 0; k < plan.columns().size(); ++k) {
    columns[k] = RoundUp8(total);
    total = columns[k] + count * plan.columns()[k].size;
  }
}

namespace {

template <typename T>
void AddDoubts(const uint8_t* cells, const Expectation& expected, size_t count,
               uint64_t* __restrict doubts) {
  const auto [column, mask, min, span] = expected;
  for (size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, cells + i * sizeof value, sizeof value);
    const uint64_t above = (uint64_t{value} & mask) - min;
    // Its top bit, or that of the difference, where it is not within the span: no branch, and two
    // rows at a time.
    doubts[i] |= above | (span - above);
  }
}

}  // namespace

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
    // Rows beyond the block are in no doubt.
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
