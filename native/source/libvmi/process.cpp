#include "source/libvmi/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "source/libvmi/program.h"
#include "source/libvmi/wire.h"

extern char** environ;

namespace libvmi {
namespace {

// Descriptors that are passed on lie above those that they become there.
constexpr int kFirstFree = 10;

// A descriptor that is closed unless it is taken.
class Descriptor {
 public:
  explicit Descriptor(int fd) {
    if (fd >= kFirstFree || fd < 0) {
      fd_ = fd;
      return;
    }
    fd_ = fcntl(fd, F_DUPFD_CLOEXEC, kFirstFree);
    close(fd);
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string SignalName(int signal) {
  switch (signal) {
#define NAME(name) \
  case name:       \
    return #name;
    NAME(SIGSEGV)
    NAME(SIGABRT)
    NAME(SIGBUS)
    NAME(SIGFPE)
    NAME(SIGILL)
    NAME(SIGKILL)
    NAME(SIGTERM)
    NAME(SIGTRAP)
    NAME(SIGSYS)
    NAME(SIGHUP)
    NAME(SIGINT)
    NAME(SIGQUIT)
    NAME(SIGPIPE)
    NAME(SIGXCPU)
    NAME(SIGXFSZ)
#undef NAME
    default:
      return "signal " + std::to_string(signal);
  }
}

// Children that a signal could not end at once (in the kernel, uninterruptibly). They are collected
// later.
struct Leftovers {
  std::mutex mutex;
  std::vector<pid_t> pids;
};

Leftovers& TheLeftovers() {
  static auto* leftovers = new Leftovers;
  return *leftovers;
}

void CollectLeftovers() {
  Leftovers& leftovers = TheLeftovers();
  const std::lock_guard<std::mutex> lock(leftovers.mutex);
  auto& pids = leftovers.pids;
  pids.erase(std::remove_if(pids.begin(), pids.end(),
                            [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; }),
             pids.end());
}

vmi::Error Failed(const std::string& what, int code) {
  vmi::Error error;
  error.code = vmi::Code::kAttach;
  error.message = "cannot start a process for libvmi: " + what + ": " + strerror(code);
  return error;
}

int64_t MillisecondsUntil(HostProcess::TimePoint until) {
  return std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now())
      .count();
}

}  // namespace

vmi::Result<std::unique_ptr<HostProcess>> HostProcess::Start(const std::string& title) {
  CollectLeftovers();
  const std::string program = HostProgram();
  if (access(program.c_str(), X_OK) != 0) {
    return {vmi::Code::kUnsupported, "cannot run " + program + " (" + strerror(errno) +
                                         "); build it with 'npx node-libvmi-build'"};
  }
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return Failed("socketpair", errno);
  Descriptor ours(sockets[0]);
  Descriptor theirs(sockets[1]);
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) != 0) return Failed("pipe", errno);
  Descriptor output(pipes[0]);
  Descriptor their_output(pipes[1]);
  Descriptor memory(static_cast<int>(
      syscall(SYS_memfd_create, "libvmi", 3u /* MFD_CLOEXEC | MFD_ALLOW_SEALING */)));
  if (memory.get() < 0 || ftruncate(memory.get(), wire::kSharedSize) != 0)
    return Failed("memfd_create", errno);
  // The other side cannot cut it off under a copy.
  constexpr int kSeals = 1 | 2 | 4;  // F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
  fcntl(memory.get(), 1033 /* F_ADD_SEALS */, kSeals);

  std::unique_ptr<HostProcess> process(new HostProcess);
  void* shared =
      mmap(nullptr, wire::kSharedSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (shared == MAP_FAILED) return Failed("mmap", errno);
  process->shared_ = static_cast<uint8_t*>(shared);

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, their_output.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, their_output.get(), STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), wire::kSocket);
  posix_spawn_file_actions_adddup2(&actions, memory.get(), wire::kShared);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  const char* arguments[] = {kHostProgram, title.c_str(), nullptr};
  const int status = posix_spawn(&process->pid_, program.c_str(), &actions, &attributes,
                                 const_cast<char* const*>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (status != 0) {
    process->pid_ = -1;
    return Failed(program, status);
  }
  process->pidfd_ = static_cast<int>(syscall(434 /* pidfd_open */, process->pid_, 0));
  process->socket_ = ours.Release();
  process->output_ = output.Release();
  return process;
}

const Lease& HostProcess::lease() const { return *wire::LeaseIn(shared_); }

HostProcess::~HostProcess() {
  if (pid_ > 0) (void)Finish(std::chrono::milliseconds(0));
  if (socket_ >= 0) close(socket_);
  if (output_ >= 0) close(output_);
  if (pidfd_ >= 0) close(pidfd_);
  if (shared_ != nullptr) munmap(shared_, wire::kSharedSize);
}

// A timeout of the socket spares each answer a poll(2).
void HostProcess::SetTimeout(int option, TimePoint until, int64_t* current) {
  const int64_t wanted = std::max<int64_t>(1, MillisecondsUntil(until));
  // The same deadline for every call is the rule; a millisecond less is the same.
  if (*current >= wanted && *current <= wanted + 1) return;
  const timeval time{static_cast<time_t>(wanted / 1000),
                     static_cast<suseconds_t>(wanted % 1000 * 1000)};
  setsockopt(socket_, SOL_SOCKET, option, &time, sizeof time);
  *current = wanted;
}

HostProcess::Io HostProcess::Send(const std::string& frame, TimePoint until) {
  SetTimeout(SO_SNDTIMEO, until, &send_timeout_);
  auto length = static_cast<uint32_t>(frame.size());
  size_t done = 0;
  while (done < sizeof length + frame.size()) {
    iovec parts[2] = {{reinterpret_cast<char*>(&length), sizeof length},
                      {const_cast<char*>(frame.data()), frame.size()}};
    msghdr message = {};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (done < sizeof length) {
      parts[0] = {reinterpret_cast<char*>(&length) + done, sizeof length - done};
    } else {
      parts[1] = {const_cast<char*>(frame.data()) + (done - sizeof length),
                  frame.size() - (done - sizeof length)};
      message.msg_iov = parts + 1;
      message.msg_iovlen = 1;
    }
    const ssize_t sent = sendmsg(socket_, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? Io::kLate : Io::kGone;
    done += static_cast<size_t>(sent);
    if (MillisecondsUntil(until) <= 0 && done < sizeof length + frame.size()) return Io::kLate;
  }
  return Io::kDone;
}

HostProcess::Io HostProcess::Receive(std::string* frame, TimePoint until) {
  SetTimeout(SO_RCVTIMEO, until, &receive_timeout_);
  // The first bytes with the length, the rest where they belong. There is never more than one frame
  // on its way.
  char start[256];
  uint32_t length = 0;
  size_t done = 0;
  while (done < sizeof length) {
    const Io io = ReceiveSome(start + done, sizeof start - done, until, &done);
    if (io != Io::kDone) return io;
  }
  memcpy(&length, start, sizeof length);
  done -= sizeof length;
  if (length > wire::kMaxFrame || done > length) return Io::kGone;
  frame->resize(length);
  memcpy(frame->data(), start + sizeof length, done);
  while (done < length) {
    const Io io = ReceiveSome(frame->data() + done, length - done, until, &done);
    if (io != Io::kDone) return io;
  }
  return Io::kDone;
}

HostProcess::Io HostProcess::ReceiveSome(char* into, size_t room, TimePoint until, size_t* done) {
  // This process may have been stopped for longer than the deadline, with the answer there all the
  // time: it is looked for once more before it is called late.
  for (bool last = false;;) {
    const ssize_t got = recv(socket_, into, room, last ? MSG_DONTWAIT : 0);
    if (got > 0) {
      *done += static_cast<size_t>(got);
      return Io::kDone;
    }
    if (got == 0) return Io::kGone;
    const bool timeout = errno == EAGAIN || errno == EWOULDBLOCK;
    if (!timeout && errno != EINTR) return Io::kGone;
    if (last && timeout) return Io::kLate;
    last = timeout || MillisecondsUntil(until) <= 0;
  }
}

std::string HostProcess::TakeOutput() {
  std::string output;
  char buffer[4096];
  for (;;) {
    const ssize_t got = read(output_, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    output.append(buffer, std::min(static_cast<size_t>(got), kMaxOutput - output.size()));
  }
  return output;
}

bool HostProcess::WaitFor(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const pid_t waited = waitpid(pid_, &wait_status_, WNOHANG);
    if (waited == pid_) return true;
    // Somebody else took its status: it has ended, and how cannot be known.
    if (waited < 0 && errno == ECHILD) {
      wait_status_ = 0;
      return true;
    }
    const int64_t left = MillisecondsUntil(until);
    if (left <= 0) return false;
    pollfd end = {pidfd_, POLLIN, 0};
    if (pidfd_ >= 0) {
      poll(&end, 1, static_cast<int>(std::min<int64_t>(left, 1000)));
    } else {
      poll(nullptr, 0, 1);
    }
  }
}

HostProcess::End HostProcess::Finish(std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kKillPatience{1000};
  End end;
  if (pid_ <= 0) return end;
  bool ended = WaitFor(patience);
  if (!ended) {
    // It is this process's child and not waited for yet: its number is nobody else's.
    kill(pid_, SIGKILL);
    ended = WaitFor(kKillPatience);
  }
  if (!ended) {
    const std::lock_guard<std::mutex> lock(TheLeftovers().mutex);
    TheLeftovers().pids.push_back(pid_);
  } else if (WIFSIGNALED(wait_status_)) {
    end.signal = SignalName(WTERMSIG(wait_status_));
  } else {
    end.exit_status = WEXITSTATUS(wait_status_);
  }
  pid_ = -1;
  return end;
}

}  // namespace libvmi
