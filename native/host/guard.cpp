#include "host/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "source/libvmi/wire.h"
#include "source/libvmi/xen.h"

extern char** environ;

namespace host {
namespace {

using libvmi::Lease;
using libvmi::XenControl;
namespace wire = libvmi::wire;

constexpr int kStartPatience = 5000;
// Milliseconds between two looks at the pulse of the host process.
constexpr int kLook = 200;
// Looks at a pulse that stands still. They are counted, not timed: a guard that was not run for a
// while itself, as when the whole computer slept, knows nothing of the host process.
constexpr int kLooksStopped = 3;
constexpr int kLooksSilent = 15;
constexpr int kReleaseTries = 50;
constexpr useconds_t kReleaseRetry = 100'000;
// Descriptors that are passed on lie above those that they become there.
constexpr int kFirstFree = 10;
constexpr char kReady = 'r';

// Whether a process is stopped, by a signal or a debugger. proc(5), stat.
bool IsStopped(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t end = line.rfind(')');
  if (end == std::string::npos || end + 2 >= line.size()) return false;
  return line[end + 2] == 'T' || line[end + 2] == 't';
}

bool Release(const XenControl& xen, uint32_t domain) {
  for (int tries = 0; tries < kReleaseTries; ++tries) {
    if (xen.TurnMonitorOff(domain)) return true;
    const auto state = xen.StateOf(domain);
    if (state && state->gone) return true;
    usleep(kReleaseRetry);
  }
  return false;
}

void LetGo(const XenControl& xen, Lease* lease, Lease::Reason reason) {
  const uint32_t domain = lease->domain.load();
  lease->reason.store(reason);
  lease->state.store(Lease::kReleasing);
  (void)Release(xen, domain);
  const auto state = xen.StateOf(domain);
  if (lease->resume.load() != 0 && state && state->paused) xen.Unpause(domain);
  lease->Release();
}

// Waits for `milliseconds`; true when the host process has ended.
bool HostEnded(int milliseconds) {
  pollfd socket = {wire::kSocket, POLLIN, 0};
  if (poll(&socket, 1, milliseconds) <= 0) return false;
  char byte;
  return recv(wire::kSocket, &byte, 1, MSG_DONTWAIT) == 0;
}

// Neither what the host process is swapped out for nor what it is ended for concerns the guard.
void StayAlive() {
  prctl(PR_SET_NAME, "libvmi_guard");
  mlockall(MCL_CURRENT);
  std::ofstream("/proc/self/oom_score_adj") << -1000;
}

}  // namespace

vmi::Status Guard::Start(uint32_t domain) {
  Dismiss();
  const auto failed = [](const char* what, int code) {
    return vmi::Status(vmi::Code::kUnsupported,
                       std::string("cannot start the process that guards the guest while its "
                                   "events are on: ") +
                           what + (code != 0 ? std::string(": ") + strerror(code) : ""));
  };
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return failed("socketpair", errno);
  socket_ = sockets[0];
  const int theirs = fcntl(sockets[1], F_DUPFD_CLOEXEC, kFirstFree);
  const int memory = fcntl(wire::kShared, F_DUPFD_CLOEXEC, kFirstFree);
  close(sockets[1]);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, theirs, wire::kSocket);
  posix_spawn_file_actions_adddup2(&actions, memory, wire::kShared);
  sigset_t ignored;
  sigemptyset(&ignored);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE}) sigaddset(&ignored, signal);
  posix_spawnattr_setsigmask(&attributes, &ignored);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  const std::string number = std::to_string(domain);
  const char* arguments[] = {"libvmi_guard", "--guard", number.c_str(), nullptr};
  const int status = posix_spawn(&pid_, "/proc/self/exe", &actions, &attributes,
                                 const_cast<char* const*>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(theirs);
  close(memory);
  if (status != 0) {
    pid_ = -1;
    Dismiss();
    return failed("posix_spawn", status);
  }
  pollfd ready = {socket_, POLLIN, 0};
  char byte = 0;
  if (poll(&ready, 1, kStartPatience) == 1 && recv(socket_, &byte, 1, 0) == 1 && byte == kReady)
    return {};
  Dismiss();
  return failed("it cannot control Xen, which takes libxenctrl and root", 0);
}

bool Guard::Lives() {
  if (socket_ < 0) return false;
  pollfd socket = {socket_, 0, 0};
  return poll(&socket, 1, 0) == 0;
}

void Guard::Dismiss() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  // One that still has something to do is collected by whoever collects orphans.
  if (pid_ > 0) waitpid(pid_, nullptr, WNOHANG);
  pid_ = -1;
}

int Guard::Main(uint32_t domain, Lease* lease) {
  const pid_t host = getppid();
  StayAlive();
  const XenControl xen;
  if (!xen.MonitorIsOn(domain)) return 1;
  if (send(wire::kSocket, &kReady, 1, MSG_NOSIGNAL) != 1) return 1;
  uint64_t pulse = 0;
  int still = 0;
  for (;;) {
    const bool ended = HostEnded(kLook);
    if (!lease->open()) {
      if (ended) return 0;
      still = 0;
      continue;
    }
    if (ended) {
      LetGo(xen, lease, Lease::kHostEnded);
      return 0;
    }
    const uint64_t now = lease->pulse.load();
    still = now == pulse ? still + 1 : 0;
    pulse = now;
    if (still >= kLooksStopped && IsStopped(host)) LetGo(xen, lease, Lease::kHostStopped);
    if (still >= kLooksSilent && lease->open()) LetGo(xen, lease, Lease::kHostSilent);
  }
}

int ReleaseMain(uint32_t domain) {
  const XenControl xen;
  return xen.usable() && Release(xen, domain) ? 0 : 1;
}

int MonitorMain(uint32_t domain) {
  const std::optional<bool> on = XenControl().MonitorIsOn(domain);
  puts(!on ? "unknown" : *on ? "on" : "off");
  return 0;
}

}  // namespace host
