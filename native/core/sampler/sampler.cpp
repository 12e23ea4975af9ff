#include "core/sampler/sampler.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <utility>

#include <sys/prctl.h>
#include <time.h>

namespace vmi {

namespace {

// How often the thread asks whether the guest is still there, nanoseconds.
constexpr uint64_t kAlive = 50'000'000;
// Looks between two changes of the interval, and its bounds where the share decides.
constexpr uint64_t kPace = 64;
constexpr uint64_t kShortest = 20'000;
constexpr uint64_t kLongest = 100'000'000;

uint64_t ThreadTime() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

Result<std::unique_ptr<Sampler>> Sampler::Start(std::shared_ptr<Memory> memory, Options options) {
  Status status = options.layout.Check();
  if (status.ok()) status = memory->Check();
  if (!status.ok()) return status;
  std::unique_ptr<Sampler> sampler(new Sampler(std::move(memory), std::move(options)));
  // Signals are for the threads of whoever loaded us.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  sigdelset(&all, SIGBUS);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  // pthread_create and not std::thread, which throws where there is no thread to be had.
  sampler->is_started_ = pthread_create(&sampler->thread_, nullptr, Main, sampler.get()) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!sampler->is_started_)
    return {Code::kBusy, "cannot start the sampler: the host has no thread for it"};
  return sampler;
}

Sampler::Sampler(std::shared_ptr<Memory> memory, Options options)
    : memory_(std::move(memory)),
      looker_(memory_.get(), std::move(options.layout)),
      ring_(std::clamp<size_t>(options.capacity, 1, kMaxCapacity)),
      share_(options.share),
      interval_(options.interval) {}

void* Sampler::Main(void* self) {
  auto* sampler = static_cast<Sampler*>(self);
  // For whoever wants to give it a core of its own.
  prctl(PR_SET_NAME, "vmi-sampler");
  // A timer of 50 us slack would be most of a short interval.
  prctl(PR_SET_TIMERSLACK, 1);
  sampler->delay_.emplace();
  // Closing the memory waits for this, and this ends at the next look once it is being closed.
  const Memory::Use use(sampler->memory_.get());
  sampler->status_ = use.status().ok() ? sampler->Run() : Status(use.status().error());
  // Before the memory is let go: whoever has closed it finds that this has ended.
  sampler->ended_.store(true, std::memory_order_release);
  return nullptr;
}

Status Sampler::Run() {
  uint64_t next = MonotonicNow();
  for (uint64_t looks = 0; !stop_.load(std::memory_order_relaxed); ++looks) {
    const uint64_t now = MonotonicNow();
    Status status = CheckAlive(now);
    if (!status.ok()) return status;
    NoteGap(now);
    looker_.Look([this](const SwitchRecord& record) {
      const bool has_place = ring_.Push(record);
      (has_place ? records_ : dropped_).fetch_add(1, std::memory_order_relaxed);
      return has_place;
    });
    status = memory_->Check();
    if (!status.ok()) return status;
    looks_.store(looks + 1, std::memory_order_relaxed);
    torn_.store(looker_.counters().torn, std::memory_order_relaxed);
    unreadable_.store(looker_.counters().unreadable, std::memory_order_relaxed);
    if ((looks + 1) % kPace == 0) Pace(looks + 1);
    const uint64_t interval = interval_.load(std::memory_order_relaxed);
    if (interval == 0) continue;
    // A look that comes late is not made up for.
    next = std::max(next + interval, MonotonicNow());
    status = Wait(next);
    if (!status.ok()) return status;
  }
  return {};
}

// Whether the guest and its memory are still there; asks seldom.
Status Sampler::CheckAlive(uint64_t now) {
  if (now - asked_ < kAlive) return memory_->Check();
  asked_ = now;
  waited_.store(delay_->Read(), std::memory_order_relaxed);
  return memory_->Begin();
}

// Counts a look that is late: what began and ended since the last one was not seen.
void Sampler::NoteGap(uint64_t now) {
  const uint64_t gap = now - std::exchange(looked_, now);
  const uint64_t due = interval_.load(std::memory_order_relaxed) + kLate;
  if (gap < due || gap == now) return;
  const auto add = [](std::atomic<uint64_t>* sum, uint64_t value) {
    sum->store(sum->load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  };
  add(&late_, 1);
  add(&late_time_, gap - (due - kLate));
  longest_gap_.store(std::max(longest_gap_.load(std::memory_order_relaxed), gap),
                     std::memory_order_relaxed);
}

// Sets the interval so that the looks since the last time would have taken their share.
void Sampler::Pace(uint64_t looks) {
  const uint64_t time = ThreadTime();
  cpu_time_.store(time, std::memory_order_relaxed);
  if (share_ > 0) {
    const double cost =
        static_cast<double>(time - paced_time_) / static_cast<double>(looks - paced_looks_);
    const double wanted =
        std::clamp(cost / share_, static_cast<double>(kShortest), static_cast<double>(kLongest));
    // Halfway, so that one dear look does not decide.
    const auto last = static_cast<double>(interval_.load(std::memory_order_relaxed));
    interval_.store(static_cast<uint64_t>((last + wanted) / 2), std::memory_order_relaxed);
  }
  paced_time_ = time;
  paced_looks_ = looks;
}

// Waits until then, or to be stopped; a long wait looks up now and then.
Status Sampler::Wait(uint64_t until) {
  std::unique_lock lock(mutex_);
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint64_t now = MonotonicNow();
    if (now >= until) break;
    Status status = CheckAlive(now);
    if (!status.ok()) return status;
    // steady_clock is CLOCK_MONOTONIC.
    const std::chrono::nanoseconds end(std::min(until, now + kAlive));
    wake_.wait_until(lock, std::chrono::steady_clock::time_point(end));
  }
  return {};
}

Result<size_t> Sampler::Take(uint64_t* into, size_t max) {
  // Read first: what the thread pushed before it ended is seen after.
  const bool has_ended = ended_.load(std::memory_order_acquire);
  const size_t count = ring_.Take(into, max);
  if (count == 0 && max > 0 && has_ended && !status_.ok()) return Error(status_.error());
  return count;
}

Sampler::Statistics Sampler::statistics() const {
  const auto load = [](const std::atomic<uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  return {load(looks_),      load(records_),     load(dropped_),  load(torn_),
          load(unreadable_), load(cpu_time_),    load(interval_), load(late_),
          load(late_time_),  load(longest_gap_), load(waited_)};
}

void Sampler::Stop() {
  if (!is_started_) return;
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true, std::memory_order_relaxed);
  }
  wake_.notify_all();
  pthread_join(thread_, nullptr);
  is_started_ = false;
}

}  // namespace vmi
