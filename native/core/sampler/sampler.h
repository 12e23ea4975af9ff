// The thread that looks at what a guest's CPUs run, and the ring it fills.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include <pthread.h>

#include "core/memory.h"
#include "core/result.h"
#include "core/sampler/record_ring.h"
#include "core/sampler/run_delay.h"
#include "core/sampler/switch_looker.h"

namespace vmi {

class Sampler {
 public:
  static constexpr size_t kMaxCapacity = size_t{1} << 20;

  struct Options {
    SwitchLayout layout;
    // Records that the ring holds.
    size_t capacity = size_t{1} << 14;
    // Nanoseconds between two looks; 0: none. Where `share` is above 0 it is only the first one.
    uint64_t interval = 0;
    // Part of a core that the thread may take, 0 to 1; 0: as much as the interval makes it.
    double share = 0;
  };

  // In the order that JavaScript reads them in.
  struct Statistics {
    uint64_t looks = 0;
    uint64_t records = 0;
    // Records that found the ring full; their switches count as missed.
    uint64_t dropped = 0;
    uint64_t torn = 0;
    uint64_t unreadable = 0;
    // CPU time of the thread, and the interval of now, nanoseconds.
    uint64_t cpu_time = 0;
    uint64_t interval = 0;
    // Looks that came kLate after they were due or later, by how much in all, and the longest time
    // between two looks; nanoseconds.
    uint64_t late = 0;
    uint64_t late_time = 0;
    uint64_t longest_gap = 0;
    // How long the thread was ready and the host had no core for it; RunDelay::kUnknown.
    uint64_t waited = 0;
  };
  static constexpr uint64_t kLate = 25'000;

  // kMisuse, kClosed, or kBusy where there is no thread to be had.
  static Result<std::unique_ptr<Sampler>> Start(std::shared_ptr<Memory> memory, Options options);
  ~Sampler() { Stop(); }
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  // Takes records as RecordRing::Take; one thread. Once all are taken, the error that ended the
  // thread: kClosed when the memory was closed or the guest is gone.
  Result<size_t> Take(uint64_t* into, size_t max);
  Statistics statistics() const;
  // Ends the thread and waits for it. What it saw can still be taken. Idempotent.
  void Stop();

 private:
  Sampler(std::shared_ptr<Memory> memory, Options options);
  static void* Main(void* self);
  Status Run();
  Status CheckAlive(uint64_t now);
  Status Wait(uint64_t until);
  void NoteGap(uint64_t now);
  void Pace(uint64_t looks);

  std::shared_ptr<Memory> memory_;
  SwitchLooker looker_;
  RecordRing ring_;
  double share_;
  std::atomic<uint64_t> interval_;
  std::atomic<uint64_t> looks_{0};
  std::atomic<uint64_t> records_{0};
  std::atomic<uint64_t> dropped_{0};
  std::atomic<uint64_t> torn_{0};
  std::atomic<uint64_t> unreadable_{0};
  std::atomic<uint64_t> cpu_time_{0};
  std::atomic<uint64_t> late_{0};
  std::atomic<uint64_t> late_time_{0};
  std::atomic<uint64_t> longest_gap_{0};
  std::atomic<uint64_t> waited_{0};
  // Of the thread's: when it asked whether the guest is there, and when it looked.
  uint64_t asked_ = 0;
  uint64_t looked_ = 0;
  std::optional<RunDelay> delay_;
  // Looks and CPU time at the last change of the interval.
  uint64_t paced_looks_ = 0;
  uint64_t paced_time_ = 0;

  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  pthread_t thread_{};
  bool is_started_ = false;
  // Set before `ended_`.
  Status status_;
  std::atomic<bool> ended_{false};
};

}  // namespace vmi
