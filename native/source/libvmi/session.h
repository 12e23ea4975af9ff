#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/result.h"
#include "source/libvmi/engine.h"
#include "source/libvmi/listening.h"

namespace libvmi {

struct SessionOptions {
  // Longest time one call may take unless it says otherwise.
  Duration deadline{5000};
  // Lets a caller's thread enter libvmi itself while nothing is queued (see Session::TryDirect). An
  // engine that is bounded always does.
  bool direct = false;
};

// One libvmi instance and the one thread that owns it.
//
// libvmi is not thread-safe and any of its calls may block or loop for good on a live guest. So
// calls are queued to a thread of this instance's own, and a caller waits no longer than its
// deadline. A call that is still inside libvmi by then poisons the session: every later call fails
// at once with VMI_BUSY, and the thread stays behind with the instance until libvmi lets go of it.
// Not so with an engine that is bounded: that ends the call itself, and goes on.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // Runs with exclusive use of the instance. Owns all it touches: it may outlive whoever queued it.
  using Work = std::function<vmi::Status(Engine&)>;
  // Gets what libvmi printed while the work ran. Called once, on the session's thread or on the one
  // that poisons the session.
  using Finish = std::function<void(vmi::Status, std::string log)>;
  using Ticket = uint64_t;

  static vmi::Result<std::shared_ptr<Session>> Start(std::unique_ptr<Engine> engine,
                                                     SessionOptions options);
  ~Session();

  // Queues vmi_init(). The first thing to do; `finish` gets VMI_ATTACH with libvmi's reason when it
  // fails.
  Ticket Attach(Finish finish, Duration deadline = Duration::zero());
  Ticket Post(const char* name, Work work, Finish finish, Duration deadline = Duration::zero());
  // Queues the work and waits for it. Each call gets its own deadline, those queued before it too:
  // the one that exceeds it poisons the session.
  vmi::Status Run(const char* name, Work work, std::string* log = nullptr);

  // Runs `work` on the calling thread if the session is `direct`, idle and open; false: use Run().
  // Such a call has no deadline unless the engine is bounded. It is meant for libvmi's file driver,
  // where a read of physical memory is a table lookup or one read(2), 300 times as fast as a change
  // of threads.
  template <class DirectWork>
  bool TryDirect(const DirectWork& work, vmi::Status* status) {
    if (!direct_ || !use_.try_lock()) return false;
    const bool ready = engine_->attached() && queued_.load(std::memory_order_acquire) == 0;
    if (ready) {
      if (bounded_) engine_->SetDeadline(options_.deadline);
      *status = work(*engine_);
    }
    use_.unlock();
    return ready;
  }

  // Queues the registration of CR3 events. Once it has succeeded the thread listens whenever
  // nothing is queued, in short turns, and keeps the latest `capacity` writes.
  Ticket StartListening(size_t capacity, Finish finish, Duration deadline);
  // Hands over what has come, as soon as something has; one caller at a time. An error once
  // listening has ended. Its ticket is no other call's: Withdraw takes it back, Poison gives the
  // session up if vmi_events_listen hangs.
  static constexpr Ticket kTakeTicket = ~Ticket{0};
  void Take(Listening::Taker finish);
  // Writes that were lost since listening began, whether anybody takes or not.
  uint64_t dropped() const { return listening_.dropped(); }
  // Queues the end of it: the guest goes on.
  Ticket StopListening(Finish finish, Duration deadline);

  enum class Withdrawn { kNotStarted, kRunning, kFinished };
  // Stops waiting for a posted call. One that runs goes on; its `finish` gets called all the same.
  Withdrawn Withdraw(Ticket ticket);
  // Gives the session up if `ticket` runs for longer than its deadline, with an error that says in
  // which call it hangs.
  vmi::Status Poison(Ticket ticket);

  // Refuses new calls and queues the end: the guest is resumed if it was paused here, the instance
  // destroyed. `finish` runs when that is done, or when the session is poisoned. Idempotent.
  Ticket Close(std::function<void()> finish);
  // Close() and wait for at most `patience`.
  void CloseNow(Duration patience);

  // kClosed, kBusy or fine.
  vmi::Status State();
  bool bounded() const { return bounded_; }
  const Facts& facts() const { return engine_->facts(); }
  const SessionOptions& options() const { return options_; }

 private:
  struct Job {
    Ticket ticket;
    const char* name;
    Work work;
    Finish finish;
    Duration deadline;
  };

  Session(std::unique_ptr<Engine> engine, SessionOptions options);
  static void* ThreadMain(void* argument);
  void Loop();
  vmi::Status RunOne(Duration deadline, const Work& work, std::string* log);
  void ListenOnce(std::unique_lock<std::mutex>* lock);
  vmi::Status StateLocked() const;

  const SessionOptions options_;
  // Held while libvmi is inside a call; guards engine_, but for its facts.
  std::mutex use_;
  const std::unique_ptr<Engine> engine_;
  const bool bounded_;
  const bool direct_;

  // Guards what follows.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> queue_;
  std::atomic<size_t> queued_{0};
  Ticket next_ticket_ = 1;
  Ticket running_ = 0;
  const char* running_name_ = "";
  std::chrono::steady_clock::time_point running_since_;
  Duration running_deadline_{0};
  Ticket end_ = 0;  // of the last job; set when closing
  bool ended_ = false;
  std::vector<std::function<void()>> end_waiters_;
  std::string poison_;  // not empty: poisoned
  Listening listening_;
};

}  // namespace libvmi
