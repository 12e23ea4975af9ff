#include "source/libvmi/session.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "source/libvmi/output.h"

namespace libvmi {
namespace {

constexpr Duration kExitPatience{2000};
// A call waits no longer than this for vmi_events_listen to return.
constexpr Duration kListenTurn{50};

// Every session of the process: exit(3) must not leave a guest paused, and Node runs no cleanup
// hooks for process.exit(). Like the handler itself it belongs to the process, and is never
// destroyed.
struct Sessions {
  std::mutex mutex;
  std::vector<std::weak_ptr<Session>> all;
};

Sessions& TheSessions() {
  static auto* sessions = new Sessions;
  return *sessions;
}

void CloseAll() {
  std::vector<std::weak_ptr<Session>> all;
  {
    const std::lock_guard<std::mutex> lock(TheSessions().mutex);
    all.swap(TheSessions().all);
  }
  const auto end = std::chrono::steady_clock::now() + kExitPatience;
  for (const std::weak_ptr<Session>& one : all) {
    const std::shared_ptr<Session> session = one.lock();
    if (session == nullptr) continue;
    const auto left = std::chrono::ceil<Duration>(end - std::chrono::steady_clock::now());
    session->CloseNow(std::max(left, Duration::zero()));
  }
}

void Remember(const std::shared_ptr<Session>& session) {
  Sessions& sessions = TheSessions();
  const std::lock_guard<std::mutex> lock(sessions.mutex);
  static const int registered = atexit(CloseAll);
  (void)registered;
  auto& all = sessions.all;
  all.erase(std::remove_if(all.begin(), all.end(), [](const auto& one) { return one.expired(); }),
            all.end());
  all.push_back(session);
}

struct ThreadStart {
  std::shared_ptr<Session> session;
};

}  // namespace

Session::Session(std::unique_ptr<Engine> engine, SessionOptions options)
    : options_(options),
      engine_(std::move(engine)),
      bounded_(engine_->bounded()),
      direct_(options_.direct || bounded_) {}

Session::~Session() = default;

vmi::Result<std::shared_ptr<Session>> Session::Start(std::unique_ptr<Engine> engine,
                                                     SessionOptions options) {
  std::shared_ptr<Session> session(new Session(std::move(engine), options));
  auto* start = new ThreadStart{session};
  // libvmi's thread takes none of the process's signals.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int status = pthread_create(&thread, nullptr, ThreadMain, start);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (status != 0) {
    delete start;
    return {vmi::Code::kAttach,
            std::string("cannot start a thread for libvmi: ") + strerror(status)};
  }
  pthread_setname_np(thread, "libvmi");
  pthread_detach(thread);
  Remember(session);
  return session;
}

void* Session::ThreadMain(void* argument) {
  auto* start = static_cast<ThreadStart*>(argument);
  const std::shared_ptr<Session> session = std::move(start->session);
  delete start;
  session->Loop();
  return nullptr;
}

void Session::Loop() {
  for (;;) {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return !queue_.empty() || listening_.active(); });
    if (queue_.empty()) {
      ListenOnce(&lock);
      continue;
    }
    Job job = std::move(queue_.front());
    queue_.pop_front();
    running_ = job.ticket;
    running_name_ = job.name;
    running_since_ = std::chrono::steady_clock::now();
    running_deadline_ = job.deadline;
    lock.unlock();

    std::string log;
    vmi::Status status = RunOne(job.deadline, job.work, &log);

    lock.lock();
    running_ = 0;
    // Counted until it is done, so that nobody enters directly between two queued calls.
    queued_.fetch_sub(1, std::memory_order_release);
    const bool last = job.ticket == end_;
    std::vector<std::function<void()>> waiters;
    if (last) {
      ended_ = true;
      waiters.swap(end_waiters_);
    }
    lock.unlock();
    if (job.finish) job.finish(std::move(status), std::move(log));
    for (const auto& waiter : waiters) waiter();
    if (last) return;
  }
}

vmi::Status Session::RunOne(Duration deadline, const Work& work, std::string* log) {
  const std::lock_guard<std::mutex> use(use_);
  if (bounded_) {
    engine_->SetDeadline(deadline);
    vmi::Status status = work(*engine_);
    *log = engine_->TakeLog();
    return status;
  }
  const CaptureOutput capture(log);
  return work(*engine_);
}

void Session::ListenOnce(std::unique_lock<std::mutex>* lock) {
  running_ = kTakeTicket;
  running_name_ = "vmi_events_listen";
  running_since_ = std::chrono::steady_clock::now();
  running_deadline_ = options_.deadline;
  lock->unlock();
  Cr3Writes batch;
  std::string log;
  vmi::Status status = RunOne(
      options_.deadline, [&](Engine& engine) { return engine.Listen(kListenTurn, &batch); }, &log);
  lock->lock();
  running_ = 0;
  // A session that was given up or closed meanwhile has ended listening already.
  const bool ends = !status.ok() && listening_.active();
  const Listening::Call added = listening_.Add(batch);
  const Listening::Call ended = ends ? listening_.End(std::move(status)) : nullptr;
  lock->unlock();
  if (added) added();
  if (ended) ended();
}

Session::Ticket Session::StartListening(size_t capacity, Finish finish, Duration deadline) {
  // The thread keeps the session alive while it runs this, and mutex_ is not held meanwhile.
  Work work = [this, capacity](Engine& engine) {
    vmi::Status status = engine.StartCr3Writes(capacity);
    if (!status.ok()) return status;
    const std::lock_guard<std::mutex> lock(mutex_);
    listening_.Begin(capacity);
    return status;
  };
  return Post("vmi_register_event", std::move(work), std::move(finish), deadline);
}

void Session::Take(Listening::Taker finish) {
  std::unique_lock<std::mutex> lock(mutex_);
  vmi::Status state = StateLocked();
  if (state.ok()) state = listening_.Refusal();
  if (!state.ok()) {
    lock.unlock();
    finish(std::move(state), {});
    return;
  }
  const Listening::Call hand_over = listening_.Wait(std::move(finish));
  lock.unlock();
  if (hand_over) hand_over();
}

Session::Ticket Session::StopListening(Finish finish, Duration deadline) {
  Work work = [this](Engine& engine) {
    vmi::Status status = engine.StopCr3Writes();
    Listening::Call told;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      told = listening_.End({vmi::Code::kClosed, "listening has ended"});
    }
    if (told) told();
    return status;
  };
  return Post("vmi_clear_event", std::move(work), std::move(finish), deadline);
}

Session::Ticket Session::Post(const char* name, Work work, Finish finish, Duration deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (vmi::Status state = StateLocked(); !state.ok()) {
    lock.unlock();
    finish(std::move(state), {});
    return 0;
  }
  const Ticket ticket = next_ticket_++;
  if (deadline == Duration::zero()) deadline = options_.deadline;
  queue_.push_back({ticket, name, std::move(work), std::move(finish), deadline});
  queued_.fetch_add(1, std::memory_order_release);
  lock.unlock();
  wake_.notify_one();
  return ticket;
}

Session::Ticket Session::Attach(Finish finish, Duration deadline) {
  return Post(
      "vmi_init", [](Engine& engine) { return engine.Attach(); }, std::move(finish), deadline);
}

vmi::Status Session::Run(const char* name, Work work, std::string* log) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable done_signal;
    bool done = false;
    vmi::Status status;
    std::string log;
  };
  auto wait = std::make_shared<Wait>();
  Post(name, std::move(work), [wait](vmi::Status status, std::string text) {
    {
      const std::lock_guard<std::mutex> lock(wait->mutex);
      wait->status = std::move(status);
      wait->log = std::move(text);
      wait->done = true;
    }
    wait->done_signal.notify_one();
  });
  for (;;) {
    // Whatever runs now, this call or one before it, has so long until its deadline.
    Ticket running;
    Duration left = options_.deadline;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      running = running_;
      if (running != 0) {
        left = std::chrono::ceil<Duration>(running_since_ + running_deadline_ -
                                           std::chrono::steady_clock::now());
      }
    }
    std::unique_lock<std::mutex> lock(wait->mutex);
    // A bounded engine ends every call itself, and may need longer than a deadline to start anew.
    if (bounded_) wait->done_signal.wait(lock, [&] { return wait->done; });
    if (wait->done_signal.wait_for(lock, left, [&] { return wait->done; })) {
      if (log != nullptr) *log = std::move(wait->log);
      return std::move(wait->status);
    }
    lock.unlock();
    // Not under wait->mutex: poisoning finishes jobs, and finishing takes it. The call that hangs
    // is not finished by that, so this one may have to leave without it.
    if (vmi::Status poisoned = Poison(running); !poisoned.ok()) return poisoned;
  }
}

Session::Withdrawn Session::Withdraw(Ticket ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (ticket == kTakeTicket) {
    listening_.Forget();
    return Withdrawn::kNotStarted;
  }
  if (running_ == ticket) return Withdrawn::kRunning;
  for (auto job = queue_.begin(); job != queue_.end(); ++job) {
    if (job->ticket != ticket) continue;
    queue_.erase(job);
    queued_.fetch_sub(1, std::memory_order_release);
    return Withdrawn::kNotStarted;
  }
  return Withdrawn::kFinished;
}

vmi::Status Session::Poison(Ticket ticket) {
  std::deque<Job> dropped;
  std::vector<std::function<void()>> waiters;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // Everybody waits for vmi_events_listen, which nobody asked for.
    if (bounded_ || ticket == 0 || (running_ != ticket && running_ != kTakeTicket)) return {};
    if (std::chrono::steady_clock::now() < running_since_ + running_deadline_) return {};
    const auto waited =
        std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - running_since_)
            .count();
    poison_ = std::string(running_name_) + " of libvmi has not returned in " +
              std::to_string(waited) + " ms; this instance is given up: close it and attach again";
    // The last job stays: the thread ends the instance when libvmi lets go of it.
    for (auto job = queue_.begin(); job != queue_.end();) {
      if (job->ticket == end_) {
        ++job;
        continue;
      }
      dropped.push_back(std::move(*job));
      job = queue_.erase(job);
      queued_.fetch_sub(1, std::memory_order_release);
    }
    waiters.swap(end_waiters_);
    if (listening_.active()) {
      if (auto told = listening_.End({vmi::Code::kBusy, poison_}))
        waiters.push_back(std::move(told));
    }
  }
  for (Job& job : dropped) job.finish({vmi::Code::kBusy, poison_}, {});
  for (const auto& waiter : waiters) waiter();
  return {vmi::Code::kBusy, poison_};
}

vmi::Status Session::StateLocked() const {
  if (end_ != 0) return {vmi::Code::kClosed, "this libvmi instance is closed"};
  if (!poison_.empty()) return {vmi::Code::kBusy, poison_};
  return {};
}

vmi::Status Session::State() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return StateLocked();
}

Session::Ticket Session::Close(std::function<void()> finish) {
  std::unique_lock<std::mutex> lock(mutex_);
  std::function<void()> told;
  if (end_ == 0) {
    end_ = next_ticket_++;
    Work end = [](Engine& engine) {
      engine.End();
      return vmi::Status();
    };
    if (listening_.active())
      told = listening_.End({vmi::Code::kClosed, "this libvmi instance is closed"});
    queue_.push_back({end_, "vmi_destroy", std::move(end), nullptr, options_.deadline});
    queued_.fetch_add(1, std::memory_order_release);
    wake_.notify_one();
  }
  const Ticket ticket = end_;
  // A poisoned session ends when libvmi lets go of it, which may be never.
  const bool now = ended_ || !poison_.empty();
  if (!now) end_waiters_.push_back(std::move(finish));
  lock.unlock();
  if (told) told();
  if (now) finish();
  return ticket;
}

void Session::CloseNow(Duration patience) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable done_signal;
    bool done = false;
  };
  auto wait = std::make_shared<Wait>();
  Close([wait] {
    {
      const std::lock_guard<std::mutex> lock(wait->mutex);
      wait->done = true;
    }
    wait->done_signal.notify_one();
  });
  std::unique_lock<std::mutex> lock(wait->mutex);
  wait->done_signal.wait_for(lock, patience, [&] { return wait->done; });
}

}  // namespace libvmi
