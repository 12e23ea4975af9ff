#include "core/helper_thread.h"

#include <climits>
#include <csignal>
#include <ctime>

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace vmi {

namespace {

// How long the helper looks out for another job before it sleeps: those of one operation follow
// each other closely, and to wake takes longer than many a job.
constexpr int64_t kLookOut = 60'000;
// Looks at the job's state between two looks at the clock, or before the core is left to others.
constexpr int kSpins = 64;

int64_t Nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void Sleep(std::atomic<uint32_t>* word, uint32_t while_it_is) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, nullptr, nullptr, 0);
}
void Wake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

bool HelperThread::Start() {
  if (started_) return true;
  // Signals are for the threads of whoever loaded us.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  // pthread_create and not std::thread, which throws where there is no thread to be had.
  started_ = pthread_create(&thread_, nullptr, Main, this) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started_;
}

void HelperThread::Stop() {
  const std::lock_guard lock(busy_);
  if (!started_) return;
  state_.store(kStop);
  Wake(&state_);
  pthread_join(thread_, nullptr);
  state_.store(kIdle);
  started_ = false;
}

void HelperThread::Share(size_t count, Call call, void* context) {
  std::unique_lock lock(busy_, std::try_to_lock);
  if (count < 2 || !lock.owns_lock() || !Start()) {
    for (size_t block = 0; block < count; ++block) call(context, block, 0);
    return;
  }
  call_ = call;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  state_.store(kOpen);
  // Both sides write first and read then, in one order for all: either it sees the job, or we that
  // it sleeps.
  if (sleeps_.load() != 0) Wake(&state_);
  TakeBlocks(0);
  uint32_t expected = kOpen;
  if (state_.compare_exchange_strong(expected, kIdle)) return;
  // It is at its last block, unless the host took its core away.
  for (int spins = 0; state_.load(std::memory_order_acquire) != kLeft; ++spins) {
    if (spins < kSpins * 16) {
      Relax();
    } else {
      sched_yield();
    }
  }
  state_.store(kIdle);
}

void HelperThread::TakeBlocks(int thread) {
  for (size_t block; (block = next_.fetch_add(1, std::memory_order_relaxed)) < count_;)
    call_(context_, block, thread);
}

bool HelperThread::AwaitJob() {
  int64_t end = Nanoseconds() + kLookOut;
  while (true) {
    for (int spins = 0; spins < kSpins; ++spins) {
      const uint32_t state = state_.load(std::memory_order_acquire);
      if (state == kStop) return false;
      uint32_t expected = kOpen;
      if (state == kOpen && state_.compare_exchange_strong(expected, kJoined)) return true;
      Relax();
    }
    if (Nanoseconds() < end) continue;
    // kLeft lasts only until the other thread has seen it.
    const uint32_t state = state_.load();
    sleeps_.store(1);
    if (state_.load() == state && state != kOpen && state != kStop) Sleep(&state_, state);
    sleeps_.store(0);
    end = Nanoseconds() + kLookOut;
  }
}

void HelperThread::Serve() {
  while (AwaitJob()) {
    TakeBlocks(1);
    state_.store(kLeft, std::memory_order_release);
  }
}

void* HelperThread::Main(void* self) {
  static_cast<HelperThread*>(self)->Serve();
  return nullptr;
}

}  // namespace vmi
