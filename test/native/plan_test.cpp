// Which plans are taken, and how rows lie in their buffer.
#include "check.h"
#include "core/plan.h"

namespace vmi::test {
namespace {

bool Takes(std::vector<int32_t> triples) { return Plan::Create(triples.data(), triples.size()).ok(); }

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
  const auto& windows = plan->windows();
  EQUAL(windows.size(), 4u);
  EQUAL(windows[0].offset, 0);
  EQUAL(windows[0].length, 4096u);
  EQUAL(windows[1].offset, 8000);
  EQUAL(windows[2].from, 0);
  EQUAL(windows[3].from, 2);
  EQUAL(windows[3].offset, -16);
  EQUAL(windows[3].length, 40u);
  EQUAL(plan->max_depth(), 1);
}

TEST(offsets_may_be_as_far_apart_as_they_like) {
  const int32_t triples[] = {-1, INT32_MIN, 8, -1, INT32_MAX, 4096};
  const auto plan = std::move(Plan::Create(triples, 6).value());
  EQUAL(plan->windows().size(), 2u);
}

}  // namespace
}  // namespace vmi::test

MAIN
