// Which plans are taken, and how rows lie in their buffer.
#include <cstring>

#include <random>

#include "check.h"
#include "core/gather/plan.h"
#include "core/gather/row_layout.h"

namespace vmi::test {
namespace {

bool Takes(std::vector<int32_t> triples) {
  return Plan::Create(triples.data(), triples.size()).ok();
}

TEST(refuses_what_rows_cannot_hold) {
  CHECK(Takes({-1, 0, 1}));
  CHECK(Takes({-1, -4096, 4096}));
  CHECK(!Takes({}));
  CHECK(!Takes({-1, 0}));
  CHECK(!Takes({-1, 0, 8, 0}));
  CHECK(!Takes({-1, 0, 0}));
  CHECK(!Takes({-1, 0, -8}));
  CHECK(!Takes({-1, 0, 4097}));
  CHECK(!Takes({-2, 0, 8}));
  CHECK(!Takes({0, 0, 8}));
  CHECK(Takes({-1, 0, 8, 0, 0, 8}));
  CHECK(!Takes({-1, 0, 4, 0, 0, 8}));
  CHECK(!Takes({-1, 0, 8, 1, 0, 8}));
  std::vector<int32_t> many;
  for (int k = 0; k < 32; ++k) many.insert(many.end(), {k - 1, 0, 8});
  CHECK(Takes(many));
  many.insert(many.end(), {-1, 0, 8});
  CHECK(!Takes(many));
}

TEST(parts_start_at_multiples_of_8) {
  const int32_t triples[] = {-1, 0, 4, -1, 8, 1, -1, 16, 16};
  const auto plan = std::move(Plan::Create(triples, 9).value());
  const RowLayout layout(*plan, 3);
  EQUAL(layout.bases, 16u);
  EQUAL(layout.columns[0], 40u);
  EQUAL(layout.columns[1], 56u);
  EQUAL(layout.columns[2], 64u);
  EQUAL(layout.total, 112u);
  EQUAL(RowLayout(*plan, 0).total, 0u);
}

TEST(as_many_rows_fit_as_fit) {
  const int32_t triples[] = {-1, 0, 4, -1, 8, 1, -1, 16, 16};
  const auto plan = std::move(Plan::Create(triples, 9).value());
  for (uint64_t length = 0; length < 2000; ++length) {
    const size_t rows = RowsThatFit(*plan, length);
    CHECK(RowLayout(*plan, rows).total <= length);
    CHECK(RowLayout(*plan, rows + 1).total > length);
  }
}

TEST(columns_near_each_other_share_a_window) {
  const int32_t triples[] = {-1, 8000, 8, -1, 4000, 96, -1, 0, 8, 2, 16, 8, 0, 16, 8, 2, -16, 8};
  const auto plan = std::move(Plan::Create(triples, 18).value());
  const auto& groups = plan->groups();
  EQUAL(groups.size(), 4u);
  EQUAL(groups[0].offset, 0);
  EQUAL(groups[0].length, 4096u);
  EQUAL(groups[1].offset, 8000);
  EQUAL(groups[2].from, 0);
  EQUAL(groups[3].from, 2);
  EQUAL(groups[3].offset, -16);
  EQUAL(groups[3].length, 40u);
  EQUAL(plan->max_depth(), 1);
}

TEST(offsets_may_be_as_far_apart_as_they_like) {
  const int32_t triples[] = {-1, INT32_MIN, 8, -1, INT32_MAX, 4096};
  const auto plan = std::move(Plan::Create(triples, 6).value());
  EQUAL(plan->groups().size(), 2u);
}

TEST(refuses_expectations_of_what_is_no_number) {
  const int32_t triples[] = {-1, 0, 4, -1, 8, 8, -1, 16, 16};
  const auto plan = std::move(Plan::Create(triples, 9).value());
  const auto takes = [&](std::vector<uint64_t> numbers) {
    return plan->Expect(numbers.data(), numbers.size()).ok();
  };
  CHECK(takes({}));
  CHECK(takes({0, 1, 0, 0, 1, UINT64_MAX, uint64_t{1} << 63, UINT64_MAX}));
  CHECK(!takes({0, 1, 0}));
  CHECK(!takes({2, 1, 0, 0}));
  CHECK(!takes({3, 1, 0, 0}));
  CHECK(!takes({UINT64_MAX, 1, 0, 0}));
  CHECK(!takes({1, 1, 2, 1}));
  CHECK(!takes({1, 1, 0, uint64_t{1} << 63}));
  CHECK(!takes(std::vector<uint64_t>(33 * 4)));
}

TEST(finds_rows_that_are_not_as_expected) {
  const int32_t triples[] = {-1, 0, 4, -1, 8, 1, -1, 16, 8};
  const auto plan = std::move(Plan::Create(triples, 9).value());
  std::mt19937_64 random(1);
  // Numbers that are at a limit more often than not.
  const auto number = [&] {
    const uint64_t edges[] = {
        0,          1,         2,       0xfff, 0x7fff'ffff, 0xffff'ffff, uint64_t{1} << 63,
        UINT64_MAX, INT64_MAX, random()};
    return edges[random() % 10] + random() % 3 - 1;
  };
  size_t found_in_all = 0;
  for (int run = 0; run < 300; ++run) {
    const size_t capacity = random() % 600;
    const size_t count = capacity == 0 ? 0 : random() % (capacity + 1);
    const RowLayout layout(*plan, capacity);
    std::vector<uint8_t> bytes(layout.total);
    const auto put = [&](uint64_t at, const auto& value) {
      std::memcpy(bytes.data() + at, &value, sizeof value);
    };
    std::vector<uint64_t> expected;
    for (uint64_t k = random() % 3; k > 0; --k) {
      const uint64_t min = number();
      const uint64_t max = min + std::min(number() & INT64_MAX, UINT64_MAX - min);
      expected.insert(expected.end(),
                      {random() % 2 * 2, random() % 2 == 0 ? UINT64_MAX : number(), min, max});
    }
    CHECK(plan->Expect(expected.data(), expected.size()).ok());
    std::vector<uint32_t> wanted;
    for (size_t row = 0; row < capacity; ++row) {
      const uint32_t faults = random() % 8 != 0 ? 0 : static_cast<uint32_t>(number());
      const auto small = static_cast<uint32_t>(number());
      const uint64_t large = number();
      put(row * 4, faults);
      put(layout.columns[0] + row * 4, small);
      put(layout.columns[2] + row * 8, large);
      bool is_expected = faults == 0;
      for (size_t k = 0; k < expected.size(); k += 4) {
        const uint64_t value = (expected[k] == 0 ? small : large) & expected[k + 1];
        is_expected = is_expected && expected[k + 2] <= value && value <= expected[k + 3];
      }
      if (!is_expected && row < count) wanted.push_back(static_cast<uint32_t>(row));
    }
    std::vector<uint32_t> found(count + 1, 0xeeee'eeee);
    found.resize(FindUnexpected(*plan, {bytes.data(), capacity}, count, found.data()));
    CHECK(found == wanted);
    found_in_all += found.size();
  }
  CHECK(found_in_all > 10'000);
}

}  // namespace
}  // namespace vmi::test

MAIN
