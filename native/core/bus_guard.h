// Loads from a mapped file that may be truncated while it is read.
//
// Touching a page beyond the end of a mapped file (or one that hugetlbfs cannot provide) raises
// SIGBUS. One process-wide handler jumps back into the guard of the thread that was hit; SIGBUS
// anywhere else goes to the handler that was there before.
#pragma once

#include <csetjmp>
#include <cstddef>

#include <atomic>
#include <utility>

namespace vmi {

struct BusFrame {
  sigjmp_buf environment;
  BusFrame* outer;
};

// The innermost guard of this thread. initial-exec: the handler must not allocate TLS.
extern thread_local BusFrame* bus_frame __attribute__((tls_model("initial-exec")));

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer blocks every signal while a handler runs, whatever sigaction(2) was told.
constexpr int kSaveMask = 1;
#else
// SA_NODEFER leaves the mask alone, and saving it is a system call.
constexpr int kSaveMask = 0;
#endif

// Installs the handler once per process. Whoever maps a file calls it first.
void InstallBusHandler();

// Runs `body`; false when SIGBUS ended it. The jump runs no destructor: only objects with trivial
// ones may live in `body` and below it, and what it wrote is to be discarded unless it is volatile.
template <typename Body>
[[nodiscard]] bool WithBusGuard(Body&& body) {
  BusFrame frame;
  frame.outer = bus_frame;
  if (sigsetjmp(frame.environment, kSaveMask) != 0) {
    bus_frame = frame.outer;
    return false;
  }
  bus_frame = &frame;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  body();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  bus_frame = frame.outer;
  return true;
}

// kLong: a piece of a copy that is larger than the caches.
enum class CopyHint { kNone, kLong };

// Copies from a mapped file, page by page; returns the bytes copied before the first page that
// raised SIGBUS.
size_t CopyGuarded(void* into, const void* from, size_t length, CopyHint hint = CopyHint::kNone);

}  // namespace vmi
