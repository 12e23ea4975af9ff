// Two threads read at once or in turns, whichever took less lately.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "source/read_turns.h"

namespace vmi::test {
namespace {

constexpr size_t kElements = 128;
constexpr int kPeriod = 2048;
constexpr size_t kTrial = 128;

// Batches one after the other, each `at_once` or `in_turns` nanoseconds after the one before.
struct Clock {
  int64_t now = 1'000'000'000;

  void Run(ReadTurns* turns, int batches, int64_t at_once, int64_t in_turns) {
    for (int i = 0; i < batches; ++i) {
      const ReadTurns::Plan plan = turns->Next();
      now += plan.in_turns ? in_turns : at_once;
      turns->Record(plan, kElements, now);
    }
  }
};

// Which of the next batches wait.
std::vector<bool> Ways(ReadTurns* turns, int count) {
  std::vector<bool> ways;
  for (int i = 0; i < count; ++i) ways.push_back(turns->Next().in_turns);
  return ways;
}

TEST(reads_at_once_but_for_trials_until_it_knows) {
  ReadTurns turns;
  const std::vector<bool> ways = Ways(&turns, 2 * kPeriod);
  for (size_t i = 0; i < ways.size(); ++i) EQUAL(ways[i], i % kPeriod < kTrial);
}

TEST(goes_over_to_what_takes_less_and_back) {
  ReadTurns turns;
  Clock clock;
  clock.Run(&turns, kPeriod, 50'000, 40'000);
  CHECK(turns.in_turns());
  // Trials are of the other way then.
  const std::vector<bool> ways = Ways(&turns, kPeriod);
  for (size_t i = 0; i < ways.size(); ++i) EQUAL(ways[i], i >= kTrial);
  clock.Run(&turns, 2 * kPeriod, 50'000, 70'000);
  CHECK(!turns.in_turns());
  clock.Run(&turns, 3 * kPeriod, 60'000, 50'000);
  CHECK(turns.in_turns());
}

TEST(stays_with_what_it_does_where_both_take_the_same) {
  ReadTurns turns;
  Clock clock;
  clock.Run(&turns, kPeriod, 50'000, 49'500);
  CHECK(!turns.in_turns());
  clock.Run(&turns, 2 * kPeriod, 50'000, 40'000);
  CHECK(turns.in_turns());
  clock.Run(&turns, 4 * kPeriod, 50'000, 50'500);
  CHECK(turns.in_turns());
}

TEST(what_is_done_between_does_not_count) {
  ReadTurns turns;
  Clock clock;
  for (int i = 0; i < 2 * kPeriod; ++i) {
    // A pause before every other batch that waits.
    const ReadTurns::Plan plan = turns.Next();
    clock.now += plan.in_turns ? (i % 2 == 0 ? 900'000 : 40'000) : 50'000;
    turns.Record(plan, kElements, clock.now);
  }
  CHECK(turns.in_turns());
  // And a clock that goes back does not either.
  turns.Record({true, true}, kElements, 0);
  CHECK(turns.in_turns());
}

TEST(the_first_batches_after_a_change_do_not_count) {
  ReadTurns turns;
  Clock clock;
  for (int i = 0; i < 3 * kPeriod; ++i) {
    const ReadTurns::Plan plan = turns.Next();
    const size_t number = static_cast<size_t>(i) % kPeriod;
    EQUAL(plan.counts, !(number < 16 || (number >= kTrial && number < kTrial + 16)));
    // Those of them that wait take longer.
    clock.now += plan.in_turns ? (plan.counts ? 40'000 : 150'000) : 50'000;
    turns.Record(plan, kElements, clock.now);
  }
  CHECK(turns.in_turns());
}

// In turns, and far from the next trial.
void MakeInTurns(ReadTurns* turns) {
  Clock clock;
  clock.Run(turns, kPeriod + 2 * static_cast<int>(kTrial), 50'000, 20'000);
  CHECK(turns->in_turns());
}

TEST(in_turns_one_is_inside) {
  ReadTurns turns;
  MakeInTurns(&turns);
  std::atomic<int> inside{0};
  std::atomic<int> met{0};
  std::atomic<int> ready{0};
  const auto read = [&] {
    ++ready;
    while (ready < 2) {
    }
    // Fewer than to the next trial.
    for (int i = 0; i < 200; ++i) {
      const ReadTurns::Turn turn(&turns, kElements);
      if (++inside > 1) ++met;
      const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
      while (std::chrono::steady_clock::now() < end) {
      }
      --inside;
    }
  };
  std::thread other(read);
  read();
  other.join();
  // A thread that is stopped inside is not waited for all the time.
  CHECK(met < 50);
}

TEST(few_elements_neither_wait_nor_count) {
  ReadTurns turns;
  for (int i = 0; i < 100; ++i) const ReadTurns::Turn small(&turns, 7);
  const std::vector<bool> ways = Ways(&turns, 2 * kTrial);
  for (size_t i = 0; i < ways.size(); ++i) EQUAL(ways[i], i < kTrial);
}

TEST(nobody_waits_for_ever) {
  ReadTurns turns;
  MakeInTurns(&turns);
  const ReadTurns::Turn stuck(&turns, kElements);
  std::thread other([&] { const ReadTurns::Turn turn(&turns, kElements); });
  other.join();
  // Few elements do not even wait.
  const ReadTurns::Turn small(&turns, 7);
}

}  // namespace
}  // namespace vmi::test

MAIN
