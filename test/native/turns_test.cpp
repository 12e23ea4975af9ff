// Jobs of two threads are done at once or in turns, whichever took less lately.
#include <vector>

#include "check.h"
#include "core/turns.h"

namespace vmi::test {
namespace {

// Which of so many jobs were done in turns.
std::vector<bool> Run(Turns* turns, int jobs, int64_t at_once, int64_t in_turns,
                      size_t blocks = 17) {
  std::vector<bool> ways;
  for (int i = 0; i < jobs; ++i) {
    ways.push_back(turns->Next(blocks));
    turns->Record(blocks, ways.back(), ways.back() ? in_turns : at_once);
  }
  return ways;
}

int Count(const std::vector<bool>& ways) {
  int count = 0;
  for (const bool way : ways) count += way ? 1 : 0;
  return count;
}

TEST(works_at_once_but_for_a_trial_in_sixteen) {
  Turns turns;
  const std::vector<bool> ways = Run(&turns, 160, 2'000'000, 2'500'000);
  EQUAL(Count(ways), 10);
  for (size_t i = 1; i < ways.size(); ++i) CHECK(!ways[i] || !ways[i - 1]);
  CHECK(!turns.in_turns());
}

TEST(goes_over_to_what_takes_less_and_back) {
  Turns turns;
  EQUAL(Count(Run(&turns, 16, 2'000'000, 1'700'000)), 1);
  CHECK(turns.in_turns());
  EQUAL(Count(Run(&turns, 160, 2'000'000, 1'700'000)), 150);
  Run(&turns, 160, 2'000'000, 2'200'000);
  CHECK(!turns.in_turns());
  Run(&turns, 160, 3'000'000, 2'600'000);
  CHECK(turns.in_turns());
}

TEST(stays_with_what_it_does_where_both_take_the_same) {
  Turns turns;
  Run(&turns, 160, 2'000'000, 1'980'000);
  CHECK(!turns.in_turns());
  Run(&turns, 160, 2'000'000, 1'600'000);
  CHECK(turns.in_turns());
  Run(&turns, 1600, 2'000'000, 2'020'000);
  CHECK(turns.in_turns());
}

TEST(compares_only_neighbours_as_large) {
  Turns turns;
  // Large jobs take longer than small ones, and so would in turns.
  for (int i = 0; i < 400; ++i) {
    const size_t blocks = i % 2 == 0 ? 17 : 60;
    const bool way = turns.Next(blocks);
    CHECK(!way);
    turns.Record(blocks, way, static_cast<int64_t>(blocks) * 100'000);
  }
  // The first that follows one of its size is the trial.
  EQUAL(Count(Run(&turns, 1, 6'000'000, 6'600'000, 60)), 1);
  // And to a trial one of another size says nothing.
  for (int i = 0; i < 10; ++i) {
    turns.Record(500, false, 50'000'000);
    turns.Record(60, true, 6'600'000);
  }
  CHECK(!turns.in_turns());
}

TEST(one_that_was_stopped_says_little) {
  Turns turns;
  bool last = false;
  for (int i = 0; i < 320; ++i) {
    const bool way = turns.Next(17);
    // In turns it takes a tenth more; but one job at once stands still for a second, after a trial.
    turns.Record(17, way, way ? 2'200'000 : last && i > 100 && i < 116 ? 1'000'000'000 : 2'000'000);
    last = way;
    CHECK(!turns.in_turns());
  }
  turns.Record(17, true, 0);
  turns.Record(17, false, -5);
  turns.Record(17, true, 1);
  CHECK(!turns.in_turns());
}

// What the source is told, and when.
struct Source final : PhysicalSource {
  std::vector<Range> none;
  std::vector<bool> told;
  const std::vector<Range>& ranges() const override { return none; }
  bool mapped() const override { return false; }
  Status Read(ReadRequest*, size_t) override { return {}; }
  Status Begin() override { return {}; }
  void ReadInTurns(bool in_turns) override { told.push_back(in_turns); }
  void Close() override {}
};

TEST(tells_the_source) {
  Turns turns;
  Source source;
  for (int i = 0; i < 3; ++i) const Turns::Job job(&turns, &source, 17);
  EQUAL(source.told.size(), 3u);
  // Few blocks are done as the last ones were.
  for (int i = 0; i < 3; ++i) const Turns::Job job(&turns, &source, 3);
  EQUAL(source.told.size(), 3u);
  {
    // One job at a time.
    const Turns::Job outer(&turns, &source, 17);
    const Turns::Job inner(&turns, &source, 17);
  }
  EQUAL(source.told.size(), 4u);
}

}  // namespace
}  // namespace vmi::test

MAIN
