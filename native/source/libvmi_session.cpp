#include "libvmi_session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "libvmi_stderr.h"

namespace libvmi {
namespace {

constexpr Session::Duration kExitPatience{2000};
constexpr size_t kMaxFileName = 499;
constexpr uint64_t kInitDomainName = 1;
constexpr uint64_t kInitDomainId = 2;

const char* ModeName(Mode mode) {
  switch (mode) {
    case Mode::kXen:
      return "xen";
    case Mode::kKvm:
      return "kvm";
    case Mode::kFile:
      break;
  }
  return "file";
}

// vmi_init_error_t since 0.14; the only values vmi_init() sets are the same before.
std::string InitErrorText(InitError error, const SessionOptions& options) {
  switch (error) {
    case 0:
      return std::string("this libvmi was built without its ") + ModeName(options.mode) + " driver";
    case 1:
      return "libvmi found no hypervisor here";
    case 2:
      return options.mode == Mode::kFile
                 ? "libvmi could not open the file"
                 : std::string("libvmi's ") + ModeName(options.mode) +
                       " driver could not start (is this the hypervisor's host, and is it root?)";
    case 3:
      return "libvmi found no such virtual machine";
    case 6:
      return "libvmi could not set up events";
    default:
      return "libvmi's error " + std::to_string(error);
  }
}

// libvmi frees its file driver twice when it cannot open the file, and cuts names at 500 bytes: neither may
// reach it. Empty when it may try.
std::string FileProblem(const std::string& path) {
  if (path.size() > kMaxFileName) return "its path has more than " + std::to_string(kMaxFileName) + " bytes";
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return strerror(errno);
  struct stat status = {};
  const int result = fstat(fd, &status);
  close(fd);
  if (result != 0) return strerror(errno);
  if (!S_ISREG(status.st_mode)) return "it is no regular file";
  if (status.st_size == 0) return "it is empty";
  return {};
}

// Every session of the process: exit(3) must not leave a guest paused, and Node runs no cleanup hooks for
// process.exit(). Like the handler itself it belongs to the process, and is never destroyed.
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
    const auto left = std::chrono::ceil<Session::Duration>(end - std::chrono::steady_clock::now());
    session->CloseNow(std::max(left, Session::Duration::zero()));
  }
}

void Remember(const std::shared_ptr<Session>& session) {
  Sessions& sessions = TheSessions();
  const std::lock_guard<std::mutex> lock(sessions.mutex);
  static const int registered = atexit(CloseAll);
  (void)registered;
  auto& all = sessions.all;
  all.erase(std::remove_if(all.begin(), all.end(), [](const auto& one) { return one.expired(); }), all.end());
  all.push_back(session);
}

struct ThreadStart {
  std::shared_ptr<Session> session;
};

}  // namespace

Session::Session(std::shared_ptr<const Library> library, SessionOptions options)
    : library_(std::move(library)), options_(std::move(options)) {}

Session::~Session() = default;

vmi::Result<std::shared_ptr<Session>> Session::Start(std::shared_ptr<const Library> library,
                                                     SessionOptions options) {
  std::shared_ptr<Session> session(new Session(std::move(library), std::move(options)));
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
    return {vmi::Code::kAttach, std::string("cannot start a thread for libvmi: ") + strerror(status)};
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
    wake_.wait(lock, [this] { return !queue_.empty(); });
    Job job = std::move(queue_.front());
    queue_.pop_front();
    running_ = job.ticket;
    running_name_ = job.name;
    running_since_ = std::chrono::steady_clock::now();
    running_deadline_ = job.deadline;
    lock.unlock();

    std::string log;
    {
      const std::lock_guard<std::mutex> use(use_);
      const CaptureStderr capture(&log);
      job.work(library_->calls(), instance_);
    }

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
    if (job.finish) job.finish({}, std::move(log));
    for (const auto& waiter : waiters) waiter();
    if (last) return;
  }
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
  struct Outcome {
    Status status = Status::kFailure;
    InitError error = 0;
    std::string file_problem;
  };
  auto outcome = std::make_shared<Outcome>();
  // The thread keeps the session alive while it runs this.
  Work work = [this, outcome](const Calls& calls, Instance) {
    if (options_.mode == Mode::kFile) {
      outcome->file_problem = options_.by_id ? "a file has no id" : FileProblem(options_.name);
      if (!outcome->file_problem.empty()) return;
    }
    const void* domain = options_.by_id ? static_cast<const void*>(&options_.id) : options_.name.c_str();
    Instance instance = nullptr;
    outcome->status = calls.vmi_init(&instance, options_.mode, domain,
                                     options_.by_id ? kInitDomainId : kInitDomainName, nullptr, &outcome->error);
    if (outcome->status == Status::kSuccess && instance != nullptr) {
      instance_ = instance;
    } else {
      outcome->status = Status::kFailure;
    }
  };
  return Post("vmi_init", std::move(work),
              [this, outcome, finish = std::move(finish)](vmi::Status status, std::string log) {
                if (status.ok() && !outcome->file_problem.empty()) {
                  status = {vmi::Code::kAttach, "cannot read " + options_.name + ": " + outcome->file_problem};
                } else if (status.ok() && outcome->status != Status::kSuccess) {
                  status = {vmi::Code::kAttach, InitErrorText(outcome->error, options_)};
                }
                finish(std::move(status), std::move(log));
              },
              deadline);
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
        left = std::chrono::ceil<Duration>(running_since_ + running_deadline_ - std::chrono::steady_clock::now());
      }
    }
    std::unique_lock<std::mutex> lock(wait->mutex);
    if (wait->done_signal.wait_for(lock, left, [&] { return wait->done; })) {
      if (log != nullptr) *log = std::move(wait->log);
      return std::move(wait->status);
    }
    lock.unlock();
    // Not under wait->mutex: poisoning finishes jobs, and finishing takes it. The call that hangs is not
    // finished by that, so this one may have to leave without it.
    if (vmi::Status poisoned = Poison(running); !poisoned.ok()) return poisoned;
  }
}

Session::Withdrawn Session::Withdraw(Ticket ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
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
    if (ticket == 0 || running_ != ticket) return {};
    if (std::chrono::steady_clock::now() < running_since_ + running_deadline_) return {};
    const auto waited =
        std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - running_since_).count();
    poison_ = std::string(running_name_) + " of libvmi has not returned in " + std::to_string(waited) +
              " ms; this instance is given up: close it and attach again";
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
  if (end_ == 0) {
    end_ = next_ticket_++;
    Work end = [this](const Calls& calls, Instance instance) {
      instance_ = nullptr;
      if (instance == nullptr) return;
      if (paused_) calls.vmi_resume_vm(instance);
      calls.vmi_destroy(instance);
    };
    queue_.push_back({end_, "vmi_destroy", std::move(end), nullptr, options_.deadline});
    queued_.fetch_add(1, std::memory_order_release);
    wake_.notify_one();
  }
  const Ticket ticket = end_;
  // A poisoned session ends when libvmi lets go of it, which may be never.
  const bool now = ended_ || !poison_.empty();
  if (!now) end_waiters_.push_back(std::move(finish));
  lock.unlock();
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
