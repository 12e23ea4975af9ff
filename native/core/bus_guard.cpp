#include "bus_guard.h"

#include <cstdint>
#include <cstring>

#include <algorithm>
#include <mutex>

#include <signal.h>

#include "physical_source.h"

namespace vmi {

thread_local BusFrame* bus_frame __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

// The only mutable state that belongs to the process and not to an object: signal handlers do too.
struct sigaction previous_action;
std::once_flag installed;

void OnBusError(int signal, siginfo_t* info, void* context) {
  // si_code above 0: raised by the kernel for a memory access, not sent by kill(2).
  if (bus_frame != nullptr && info->si_code > 0) siglongjmp(bus_frame->environment, 1);
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler == SIG_IGN && info->si_code <= 0) {
    return;
  } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    // Put it back and return: the access is repeated, or the signal sent again, and ends as it would have.
    sigaction(signal, &previous_action, nullptr);
    if (info->si_code <= 0) raise(signal);
  } else {
    previous_action.sa_handler(signal);
  }
}

}  // namespace

void InstallBusHandler() {
  std::call_once(installed, [] {
    struct sigaction action {};
    action.sa_sigaction = OnBusError;
    // SA_NODEFER: leaving by siglongjmp must not leave the signal blocked.
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
  });
}

size_t CopyGuarded(void* into, const void* from, size_t length) {
  auto* target = static_cast<uint8_t*>(into);
  const auto* source = static_cast<const uint8_t*>(from);
  volatile size_t done = 0;
  const bool complete = WithBusGuard([&] {
    size_t copied = 0;
    while (copied < length) {
      const size_t in_page = kPageSize - (reinterpret_cast<uintptr_t>(source + copied) & kPageMask);
      const size_t part = std::min<size_t>(length - copied, in_page);
      std::memcpy(target + copied, source + copied, part);
      copied += part;
      done = copied;
    }
  });
  return complete ? length : done;
}

}  // namespace vmi
