#include "read_turns.h"

#include <ctime>

namespace vmi {

namespace {

int64_t Now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ReadTurns::Turn::Turn(ReadTurns* turns, size_t elements) : turns_(turns), elements_(elements) {
  if (elements_ < kFew) return;
  plan_ = turns_->Next();
  if (!plan_.in_turns || !turns_->Wait()) turns_->inside_.fetch_add(1, std::memory_order_acquire);
}

ReadTurns::Turn::~Turn() {
  if (elements_ < kFew) return;
  turns_->inside_.fetch_sub(1, std::memory_order_release);
  turns_->Record(plan_, elements_, Now());
}

ReadTurns::Plan ReadTurns::Next() {
  const uint32_t number = batches_.fetch_add(1, std::memory_order_relaxed) % kPeriod;
  const bool is_trial = number < kTrial;
  return {in_turns() != is_trial, number % kTrial >= kSettle || number >= 2 * kTrial};
}

// Until nobody is inside, and then is; false: that took too long, the other may have to wait for the disk.
bool ReadTurns::Wait() {
  constexpr int kPatience = 10'000;
  for (int i = 0; i < kPatience; ++i) {
    uint32_t nobody = 0;
    if (inside_.load(std::memory_order_relaxed) == 0 &&
        inside_.compare_exchange_weak(nobody, 1, std::memory_order_acquire, std::memory_order_relaxed)) {
      return true;
    }
    Relax();
  }
  return false;
}

// From one end to the next there is all that a batch takes, on whichever thread. Two threads may lose what one of them adds: it is an
// average, and a guess.
void ReadTurns::Record(Plan plan, size_t elements, int64_t now) {
  // Longer, and something else was done between.
  constexpr int64_t kPause = 200'000;
  constexpr uint64_t kEnough = 1024;
  constexpr uint64_t kLately = 16 * kEnough;
  const int64_t taken = now - last_end_.exchange(now, std::memory_order_relaxed);
  if (!plan.counts || taken < 0 || taken > kPause) return;
  Way& way = ways_[plan.in_turns ? 1 : 0];
  uint64_t nanoseconds = way.nanoseconds.load(std::memory_order_relaxed) + static_cast<uint64_t>(taken);
  uint64_t count = way.elements.load(std::memory_order_relaxed) + elements;
  if (count > kLately) {
    nanoseconds /= 2;
    count /= 2;
  }
  way.nanoseconds.store(nanoseconds, std::memory_order_relaxed);
  way.elements.store(count, std::memory_order_relaxed);

  const uint64_t once_count = ways_[0].elements.load(std::memory_order_relaxed);
  const uint64_t turns_count = ways_[1].elements.load(std::memory_order_relaxed);
  if (once_count < kEnough || turns_count < kEnough) return;
  const double once = static_cast<double>(ways_[0].nanoseconds.load(std::memory_order_relaxed)) / static_cast<double>(once_count);
  const double turns = static_cast<double>(ways_[1].nanoseconds.load(std::memory_order_relaxed)) / static_cast<double>(turns_count);
  // Nearly the same is no reason to change.
  if (turns < once * 0.97) in_turns_.store(true, std::memory_order_relaxed);
  if (turns > once * 1.03) in_turns_.store(false, std::memory_order_relaxed);
}

}  // namespace vmi
