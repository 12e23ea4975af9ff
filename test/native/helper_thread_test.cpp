// The helper thread: every block of every job is run, once.
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include <unistd.h>

#include "check.h"
#include "core/helper_thread.h"

namespace vmi::test {
namespace {

TEST(runs_every_block_once) {
  HelperThread helper;
  for (size_t round = 0; round < 3000; ++round) {
    std::vector<std::atomic<int>> ran(round % 40);
    helper.Run(ran.size(), [&](size_t block, int thread) {
      CHECK(thread >= 0 && thread < HelperThread::kThreads);
      ++ran[block];
    });
    for (const auto& times : ran) EQUAL(times.load(), 1);
    // It sleeps now and then, or is about to.
    if (round % 100 == 0) usleep(200);
    if (round % 500 == 0) helper.Stop();
  }
}

TEST(both_threads_work) {
  HelperThread helper;
  std::set<int> threads;
  for (int round = 0; round < 1000 && threads.size() < 2; ++round) {
    int by[64] = {};
    helper.Run(64, [&](size_t block, int thread) {
      by[block] = thread;
      usleep(20);
    });
    threads.insert(std::begin(by), std::end(by));
  }
  EQUAL(threads.size(), 2u);
}

TEST(whoever_comes_second_works_alone) {
  HelperThread helper;
  std::atomic<bool> stop{false};
  std::atomic<size_t> jobs{0};
  const auto work = [&] {
    while (!stop) {
      std::atomic<size_t> ran{0};
      helper.Run(16, [&](size_t, int) { ++ran; });
      EQUAL(ran.load(), 16u);
      ++jobs;
    }
  };
  std::thread other(work);
  std::thread another(work);
  while (jobs < 20'000) usleep(100);
  stop = true;
  other.join();
  another.join();
}

TEST(stops_whatever_it_does) {
  for (int round = 0; round < 200; ++round) {
    HelperThread helper;
    if (round % 2 == 0) helper.Run(4, [](size_t, int) {});
    usleep(static_cast<useconds_t>(round));
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
