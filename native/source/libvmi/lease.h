// What three processes know of a monitor of Xen that one of them turned on.
#pragma once

#include <atomic>
#include <cstdint>

namespace libvmi {

// A domain of Xen whose events somebody asked for waits for free slots of a ring of 8. If nobody
// takes what is in them, it is frozen; if the process that did is no more, for good. So that never
// happens: a guard (native/host/guard.h) sees by these words whether the host process still takes,
// and turns the monitor off when it does not; the process that started the host looks whether that
// was done, and does it otherwise.
//
// The words lie in memory that all of them have mapped; zeros at first. A host process that is
// broken may write anything here, so no more than whether and why the monitor is off is believed.
struct Lease {
  enum State : uint32_t {
    kNone,
    // The monitor is on, or will be in a moment.
    kHeld,
    // Somebody turns it off.
    kReleasing,
    // It is off again.
    kReleased,
  };
  enum Reason : uint32_t {
    kByHost,
    // The host process ended without a word.
    kHostEnded,
    // It was stopped: by SIGSTOP, by a debugger.
    kHostStopped,
    // It ran, or could have, and yet took nothing.
    kHostSilent,
  };

  // See Cr3Events::SetPulse.
  std::atomic<uint64_t> pulse;
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> reason;
  std::atomic<uint32_t> domain;
  // libvmi pauses the domain while it lets go of it, and the domain ran before: whoever finds it
  // paused then lets it run.
  std::atomic<uint32_t> resume;

  // Whether the monitor may be on.
  bool open() const {
    const uint32_t now = state.load();
    return now == kHeld || now == kReleasing;
  }
  void Hold(uint32_t number) {
    domain.store(number);
    reason.store(kByHost);
    resume.store(0);
    state.store(kHeld);
  }
  // For who held it: whether turning the monitor off is still left to him. Whoever lost it may not:
  // it could be another's monitor by now.
  bool Claim() {
    uint32_t expected = kHeld;
    return state.compare_exchange_strong(expected, kReleasing);
  }
  void Release() { state.store(kReleased); }
};
static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::atomic<uint32_t>::is_always_lock_free);

// What to say of a monitor that was turned off for such a reason.
inline const char* ReasonText(uint32_t reason) {
  switch (reason) {
    case Lease::kHostStopped:
      return "its process was stopped, and the guest must not wait for it";
    case Lease::kHostSilent:
      return "its process took no event for seconds, and the guest must not wait for it";
    default:
      return "its process ended";
  }
}

}  // namespace libvmi
