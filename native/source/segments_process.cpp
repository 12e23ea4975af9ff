#include "source/segments_process.h"

#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

#include <algorithm>
#include <string>

#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/physical_source.h"

namespace vmi {

namespace {

int64_t CoarseMilliseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

// A PID comes back only after all others were used: not within this time. So a read that follows a
// look at the pidfd this closely was not of another process. (The look costs nearly as much as the
// read.)
constexpr int64_t kAliveFor = 10;

}  // namespace

Result<std::unique_ptr<GuestProcess>> GuestProcess::Open(pid_t pid) {
  std::unique_ptr<GuestProcess> process(new GuestProcess());
  process->pid_ = pid;
  process->pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (process->pidfd_ < 0) {
    if (errno == ESRCH) return {Code::kAttach, "there is no process " + std::to_string(pid)};
    return {Code::kAttach,
            "cannot hold process " + std::to_string(pid) + ": " + std::strerror(errno) +
                " (pidfd_open needs Linux 5.3 or later and the PID of a process, not of a thread)"};
  }
  Status alive = process->CheckAlive();
  if (!alive.ok()) return alive;
  return process;
}

GuestProcess::~GuestProcess() {
  if (pidfd_ >= 0) close(pidfd_);
}

Status GuestProcess::CheckAlive() {
  pollfd descriptor{pidfd_, POLLIN, 0};
  int ready;
  do {
    ready = poll(&descriptor, 1, 0);
  } while (ready < 0 && errno == EINTR);
  if (ready != 0) return {Code::kClosed, "QEMU process " + std::to_string(pid_) + " has exited"};
  seen_alive_.store(CoarseMilliseconds(), std::memory_order_relaxed);
  return {};
}

Status GuestProcess::CheckAliveLately() {
  constexpr int64_t kLately = 100'000;
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  const int64_t now = static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  if (now - looked_.load(std::memory_order_relaxed) < kLately) return {};
  Status alive = CheckAlive();
  if (alive.ok()) looked_.store(now, std::memory_order_relaxed);
  return alive;
}

Status GuestProcess::Failed(int error) {
  if (error == ESRCH)
    return {Code::kClosed, "QEMU process " + std::to_string(pid_) + " has exited"};
  if (error == EPERM) {
    return {Code::kAttach, "cannot read the memory of process " + std::to_string(pid_) +
                               ": permission denied. Run as root or give node CAP_SYS_PTRACE; "
                               "being the same user is enough "
                               "only while the sysctl kernel.yama.ptrace_scope is 0"};
  }
  return {Code::kAttach, "cannot read the memory of process " + std::to_string(pid_) + ": " +
                             std::strerror(error)};
}

Status GuestProcess::TryRead(uint64_t address) {
  uint8_t byte;
  Piece piece{address, &byte, 1, 0};
  Status status = Read(&piece, 1);
  if (!status.ok() || piece.transferred == 1) return status;
  return {Code::kAttach, "process " + std::to_string(pid_) + " has no memory at " + Hex(address)};
}

Result<size_t> GuestProcess::Write(uint64_t address, const uint8_t* from, size_t length) {
  // By the pidfd: a PID that another process has by now must not be written.
  Status alive = CheckAlive();
  if (!alive.ok()) return alive;
  size_t done = 0;
  while (done < length) {
    const iovec local{const_cast<uint8_t*>(from + done), length - done};
    const iovec remote{reinterpret_cast<void*>(static_cast<uintptr_t>(address + done)),
                       length - done};
    const ssize_t part = process_vm_writev(pid_, &local, 1, &remote, 1, 0);
    if (part < 0 && errno != EFAULT) return Failed(errno);
    if (part <= 0) break;
    done += static_cast<size_t>(part);
  }
  return done;
}

Status GuestProcess::Read(Piece* pieces, size_t count) {
  // Neighbours here and there are one element: a window that crosses a page costs no more than one
  // that does not.
  constexpr size_t kBatch = 256;
  static_assert(kBatch <= IOV_MAX);
  iovec local[kBatch];
  iovec remote[kBatch];

  for (size_t i = 0; i < count; ++i) pieces[i].transferred = 0;
  size_t first = 0;
  while (first < count) {
    size_t locals = 0;
    size_t remotes = 0;
    size_t last = first;
    size_t total = 0;
    for (; last < count; ++last) {
      const Piece& piece = pieces[last];
      void* there = reinterpret_cast<void*>(static_cast<uintptr_t>(piece.address));
      const bool joins_local = locals > 0 && static_cast<uint8_t*>(local[locals - 1].iov_base) +
                                                     local[locals - 1].iov_len ==
                                                 piece.into;
      const bool joins_remote = remotes > 0 && static_cast<uint8_t*>(remote[remotes - 1].iov_base) +
                                                       remote[remotes - 1].iov_len ==
                                                   there;
      if ((!joins_local && locals == kBatch) || (!joins_remote && remotes == kBatch)) break;
      if (total > SSIZE_MAX - piece.length) break;
      if (joins_local) {
        local[locals - 1].iov_len += piece.length;
      } else {
        local[locals++] = {piece.into, piece.length};
      }
      if (joins_remote) {
        remote[remotes - 1].iov_len += piece.length;
      } else {
        remote[remotes++] = {there, piece.length};
      }
      total += piece.length;
    }

    const ssize_t result = process_vm_readv(pid_, local, locals, remote, remotes, 0);
    if (result < 0 && errno != EFAULT) return Failed(errno);
    size_t left = result < 0 ? 0 : static_cast<size_t>(result);
    const bool complete = left == total;

    size_t next = first;
    while (next < last && left >= pieces[next].length) {
      pieces[next].transferred = pieces[next].length;
      left -= pieces[next].length;
      ++next;
    }
    if (!complete) {
      // The call ends at the first page that faults; go on with the first piece beyond that page.
      const uint64_t bad = pieces[next].address + left;
      const uint64_t bad_page = bad & ~kPageMask;
      pieces[next].transferred = left;
      ++next;
      while (next < count && (pieces[next].address & ~kPageMask) == bad_page &&
             pieces[next].length > 0)
        ++next;
    }
    first = next;
  }

  if (CoarseMilliseconds() - seen_alive_.load(std::memory_order_relaxed) >= kAliveFor)
    return CheckAlive();
  return {};
}

}  // namespace vmi
