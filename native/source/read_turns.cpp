#include "source/read_turns.h"

namespace vmi {

namespace {

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ReadTurns::Turn::Turn(ReadTurns* turns, size_t elements)
    : turns_(turns), takes_part_(elements >= kFew) {
  if (!takes_part_) return;
  const bool waits = turns_->in_turns_.load(std::memory_order_relaxed);
  if (!waits || !turns_->Wait()) turns_->inside_.fetch_add(1, std::memory_order_acquire);
}

ReadTurns::Turn::~Turn() {
  if (takes_part_) turns_->inside_.fetch_sub(1, std::memory_order_release);
}

// Until nobody is inside, and then is; false: that took too long, the other may have to wait for
// the disk.
bool ReadTurns::Wait() {
  constexpr int kPatience = 10'000;
  for (int i = 0; i < kPatience; ++i) {
    uint32_t nobody = 0;
    if (inside_.load(std::memory_order_relaxed) == 0 &&
        inside_.compare_exchange_weak(nobody, 1, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
      return true;
    }
    Relax();
  }
  return false;
}

}  // namespace vmi
