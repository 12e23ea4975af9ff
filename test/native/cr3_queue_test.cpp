// The queues between Xen and whoever reads its events, and who may let go of a domain.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "host/engine_lock.h"
#include "source/libvmi/cr3_queue.h"
#include "source/libvmi/lease.h"
#include "source/libvmi/listening.h"

namespace vmi::test {
namespace {

using libvmi::Cr3Queue;
using libvmi::Cr3Writes;
using std::chrono::milliseconds;

constexpr milliseconds kNow{0};
constexpr milliseconds kLong{60'000};

TEST(keeps_the_latest_and_counts_the_rest) {
  Cr3Queue queue;
  queue.Reset(3);
  for (uint64_t k = 0; k < 10; ++k) queue.Push({k + 1, k, 0});
  EQUAL(queue.dropped(), uint64_t{7});
  const Cr3Writes taken = queue.Take(kNow);
  EQUAL(taken.writes.size(), size_t{3});
  EQUAL(taken.writes[0].value, uint64_t{8});
  EQUAL(taken.dropped, uint64_t{7});
  CHECK(queue.empty());
  // What another queue lost is counted on top, and a batch without a count takes nothing back.
  queue.Add({{{1, 0, 0}, {2, 1, 0}, {3, 2, 0}, {4, 3, 0}}, 5});
  EQUAL(queue.dropped(), uint64_t{7 + 5 + 1});
  queue.Add({});
  EQUAL(queue.dropped(), uint64_t{13});
  queue.Reset(1);
  EQUAL(queue.dropped(), uint64_t{0});
}

TEST(loses_nothing_uncounted_between_threads) {
  constexpr uint64_t kWrites = 100'000;
  Cr3Queue queue;
  queue.Reset(64);
  std::thread writer([&] {
    for (uint64_t k = 0; k < kWrites; ++k) queue.Push({k + 1, k, 0});
  });
  uint64_t seen = 0;
  uint64_t last = 0;
  while (last < kWrites) {
    for (const auto& write : queue.Take(kLong).writes) {
      CHECK(write.value > last);
      last = write.value;
      ++seen;
    }
  }
  writer.join();
  EQUAL(seen + queue.dropped(), kWrites);
}

TEST(wakes_a_reader_with_nothing) {
  Cr3Queue queue;
  queue.Reset(1);
  std::atomic<bool> done{false};
  std::thread reader([&] {
    EQUAL(queue.Take(kLong).writes.size(), size_t{0});
    done = true;
  });
  while (!done) queue.WakeReaders();
  reader.join();
}

TEST(gives_the_engine_to_whoever_waits) {
  host::EngineLock lock;
  std::atomic<bool> stop{false};
  uint64_t count = 0;
  std::thread listener([&] {
    while (!stop) {
      lock.LockLast();
      ++count;
      lock.unlock();
    }
  });
  for (int k = 0; k < 1000; ++k) {
    lock.lock();
    ++count;
    lock.unlock();
  }
  CHECK(lock.try_lock_for(kLong));
  CHECK(count >= 1000);
  lock.unlock();
  stop = true;
  listener.join();
}

TEST(lets_one_release_a_domain) {
  for (int round = 0; round < 1000; ++round) {
    libvmi::Lease lease = {};
    CHECK(!lease.open() && !lease.Claim());
    lease.Hold(7);
    std::atomic<int> claims{0};
    const auto claim = [&] { claims += lease.Claim() ? 1 : 0; };
    std::thread other(claim);
    claim();
    other.join();
    EQUAL(claims.load(), 1);
    CHECK(lease.open());
    lease.Release();
    CHECK(!lease.open());
  }
}

TEST(hands_over_before_it_tells_of_the_end) {
  libvmi::Listening listening;
  EQUAL(listening.Refusal().ok(), false);
  listening.Begin(8);
  CHECK(listening.Refusal().ok());
  CHECK(!listening.Add({{{1, 0, 0}}, 0}));
  CHECK(!listening.End({Code::kClosed, "the guest has ended"}));
  size_t taken = 0;
  CHECK(listening.Refusal().ok());
  const auto call = listening.Wait(
      [&](Status status, Cr3Writes writes) { taken = status.ok() ? writes.writes.size() : 99; });
  CHECK(static_cast<bool>(call));
  call();
  EQUAL(taken, size_t{1});
  CHECK(listening.Refusal().error().code == Code::kClosed);
}

}  // namespace
}  // namespace vmi::test

MAIN
