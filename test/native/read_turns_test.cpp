// One thread at a time in the kernel, if so told.
#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"
#include "source/read_turns.h"

namespace vmi::test {
namespace {

constexpr size_t kElements = 128;

// How many of 400 batches of two threads met another.
int Meetings(ReadTurns* turns, size_t elements) {
  std::atomic<int> inside{0};
  std::atomic<int> met{0};
  std::atomic<int> ready{0};
  const auto read = [&] {
    ++ready;
    while (ready < 2) {
    }
    for (int i = 0; i < 200; ++i) {
      const ReadTurns::Turn turn(turns, elements);
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
  return met;
}

TEST(in_turns_one_is_inside) {
  ReadTurns turns;
  turns.Set(true);
  // A thread that is stopped inside is not waited for: the other may meet it 200 times, and it the
  // other next to never.
  CHECK(Meetings(&turns, kElements) < 300);
}

TEST(nobody_waits_for_ever) {
  ReadTurns turns;
  turns.Set(true);
  const ReadTurns::Turn stuck(&turns, kElements);
  std::thread other([&] { const ReadTurns::Turn turn(&turns, kElements); });
  other.join();
}

TEST(few_elements_take_no_part) {
  ReadTurns turns;
  turns.Set(true);
  const ReadTurns::Turn large(&turns, kElements);
  const auto start = std::chrono::steady_clock::now();
  // To wait for each would take a tenth of a millisecond and more.
  for (int i = 0; i < 10'000; ++i) const ReadTurns::Turn small(&turns, 7);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(500));
}

}  // namespace
}  // namespace vmi::test

MAIN
