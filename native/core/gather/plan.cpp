#include "core/gather/plan.h"

#include <algorithm>
#include <string>
#include <utility>

namespace vmi {

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
  plan->MakeGroups();
  return plan;
}

Plan Plan::With(int32_t offset, uint32_t size) const {
  Plan plan = *this;
  plan.columns_.push_back({-1, offset, size, 0});
  plan.MakeGroups();
  return plan;
}

void Plan::MakeGroups() {
  groups_.clear();
  for (int depth = 0; depth <= max_depth_; ++depth) AddGroups(depth);
}

// Groups of the columns at one depth.
void Plan::AddGroups(int depth) {
  std::vector<uint8_t> order;
  for (size_t k = 0; k < columns_.size(); ++k) {
    if (columns_[k].depth == depth) order.push_back(static_cast<uint8_t>(k));
  }
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) {
    if (columns_[a].from != columns_[b].from) return columns_[a].from < columns_[b].from;
    return columns_[a].offset < columns_[b].offset;
  });
  const size_t first = groups_.size();
  for (const uint8_t k : order) {
    const Column& column = columns_[k];
    if (groups_.size() > first) {
      ColumnGroup& group = groups_.back();
      const int64_t from_start = int64_t{column.offset} - group.offset;
      if (group.from == column.from && from_start + column.size <= kMaxGroup) {
        group.length = std::max(group.length, static_cast<uint32_t>(from_start) + column.size);
        group.parts.push_back(
            {k, static_cast<uint16_t>(from_start), static_cast<uint16_t>(column.size)});
        continue;
      }
    }
    groups_.push_back({column.from,
                       column.offset,
                       column.size,
                       depth,
                       {{k, 0, static_cast<uint16_t>(column.size)}}});
  }
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

}  // namespace vmi
