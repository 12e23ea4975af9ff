#include "core/bus_guard.h"

#include <cstdint>
#include <cstring>

#include <algorithm>
#include <mutex>

#include <signal.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "core/physical_source.h"

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
    // Put it back and return: the access is repeated, or the signal sent again, and ends as it
    // would have.
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

namespace {

#ifdef __SSE2__
// As memcpy, for a piece of a copy that is larger than the caches: stores go past them. memcpy does
// so too, but a long read comes to it in pieces, between holes.
void CopyPastCaches(uint8_t* into, const uint8_t* from, size_t length) {
  const size_t head = std::min<size_t>(-reinterpret_cast<uintptr_t>(into) & 63, length);
  std::memcpy(into, from, head);
  into += head;
  from += head;
  length -= head;
  for (; length >= 64; into += 64, from += 64, length -= 64) {
    const auto* source = reinterpret_cast<const __m128i*>(from);
    auto* target = reinterpret_cast<__m128i*>(into);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
  _mm_sfence();
  std::memcpy(into, from, length);
}
#else
void CopyPastCaches(uint8_t* into, const uint8_t* from, size_t length) {
  std::memcpy(into, from, length);
}
#endif

}  // namespace

size_t CopyGuarded(void* into, const void* from, size_t length, CopyHint hint) {
  auto* target = static_cast<uint8_t*>(into);
  const auto* source = static_cast<const uint8_t*>(from);
  // In one piece, as long as nothing is wrong.
  if (hint == CopyHint::kLong) {
    if (WithBusGuard([&] { CopyPastCaches(target, source, length); })) return length;
  }
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
