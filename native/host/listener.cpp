#include "host/listener.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <string>

namespace host {
namespace {

using libvmi::Duration;
using libvmi::Lease;

// How long libvmi may wait for an event before others get their turn.
constexpr Duration kTurn{20};
// Time between two looks at the domain and at the guard.
constexpr Duration kLook{250};
// A guard that is ended this often is ended on purpose.
constexpr int kMostGuards = 3;

// A process that is swapped out leaves the guest waiting. Root's memory has no limit, and who is in
// control of Xen is root.
void StayInMemory() {
  if (geteuid() == 0) mlockall(MCL_CURRENT | MCL_FUTURE | 4 /* MCL_ONFAULT */);
}

}  // namespace

vmi::Status Listener::Start(size_t capacity) {
  Join();
  const std::lock_guard<EngineLock> hold(*lock_);
  const std::optional<uint32_t> domain = engine_->xen_domain();
  if (domain && !lease_->open()) {
    xen_.emplace();
    guards_ = 1;
    vmi::Status guarded = guard_.Start(*domain);
    if (!guarded.ok()) return guarded;
    lease_->Hold(*domain);
    StayInMemory();
  }
  engine_->events().SetPulse(&lease_->pulse);
  vmi::Status status = engine_->StartCr3Writes(capacity);
  if (!status.ok()) return status;
  stop_ = false;
  ended_ = false;
  const int failed = pthread_create(&thread_, nullptr, ThreadMain, this);
  if (failed != 0) {
    (void)engine_->StopCr3Writes();
    return {vmi::Code::kUnsupported,
            std::string("cannot start a thread that listens: ") + strerror(failed)};
  }
  running_ = true;
  return {};
}

void* Listener::ThreadMain(void* self) {
  static_cast<Listener*>(self)->Loop();
  return nullptr;
}

void Listener::Loop() {
  for (;;) {
    lock_->LockLast();
    const std::lock_guard<EngineLock> hold(*lock_, std::adopt_lock);
    if (stop_) return;
    vmi::Status status = TurnLocked();
    ++turns_;
    if (status.ok()) continue;
    // Without a listener no event may be left on, and a domain that has ended stays as long as
    // anybody holds its memory.
    if (engine_->xen_domain()) EndLocked();
    end_ = status.Take();
    ended_ = true;
    engine_->events().queue().WakeReaders();
    return;
  }
}

vmi::Status Listener::TurnLocked() {
  vmi::Status status = engine_->ListenTurn(kTurn);
  const auto now = std::chrono::steady_clock::now();
  if (!engine_->xen_domain() || (status.ok() && now < next_look_)) return status;
  next_look_ = now + kLook;
  vmi::Status look = LookLocked();
  return look.ok() ? std::move(status) : std::move(look);
}

// Whether it makes sense to go on.
vmi::Status Listener::LookLocked() {
  const uint32_t state = lease_->state.load();
  if (state != Lease::kHeld) {
    return {vmi::Code::kBusy, std::string("listening was ended from outside: ") +
                                  libvmi::ReasonText(lease_->reason.load())};
  }
  const auto domain = xen_->StateOf(*engine_->xen_domain());
  if (domain && domain->gone) return {vmi::Code::kClosed, "the guest has ended"};
  if (guard_.Lives()) return {};
  vmi::Status guarded = ++guards_ > kMostGuards
                            ? vmi::Status(vmi::Code::kBusy,
                                          "the process that guards the guest while its events "
                                          "are on was ended again and again")
                            : guard_.Start(*engine_->xen_domain());
  return guarded;
}

vmi::Status Listener::Take(Duration timeout, libvmi::Cr3Writes* writes) {
  libvmi::Cr3Queue& queue = engine_->events().queue();
  const uint64_t turns = turns_;
  for (;;) {
    // In this order: what came before the end is handed over before the end is told of.
    const bool ended = ended_;
    *writes = queue.Take(ended ? Duration::zero() : timeout);
    if (!writes->writes.empty()) return {};
    if (ended) return vmi::Status(vmi::Error(end_));
    // That nothing came is the answer of a libvmi that answers: one that hangs makes this late.
    if (turns_ != turns) return {};
    timeout = kTurn;
  }
}

vmi::Status Listener::Stop() {
  Join();
  const std::lock_guard<EngineLock> hold(*lock_);
  return engine_->StopCr3Writes();
}

void Listener::Join() {
  if (!running_) return;
  running_ = false;
  stop_ = true;
  pthread_join(thread_, nullptr);
}

void Listener::End() {
  Join();
  {
    const std::lock_guard<EngineLock> hold(*lock_);
    EndLocked();
  }
  guard_.Dismiss();
}

void Listener::EndLocked() {
  if (!lease_->open()) {
    // It was never taken, or somebody took it away.
    if (lease_->state == Lease::kReleased && engine_->events().registered())
      engine_->Abandon();
    else
      engine_->End();
    return;
  }
  const bool ours = lease_->Claim();
  if (!ours) {
    engine_->Abandon();
    return;
  }
  const auto domain = xen_->StateOf(lease_->domain.load());
  // libvmi pauses a guest that runs while it takes its events from it.
  lease_->resume = domain && !domain->paused ? 1 : 0;
  engine_->End();
  lease_->Release();
}

void Listener::EndNow(Duration patience) {
  stop_ = true;
  if (lock_->try_lock_for(patience)) {
    EndLocked();
    lock_->unlock();
    return;
  }
  if (!lease_->Claim()) return;
  (void)libvmi::XenControl().TurnMonitorOff(lease_->domain.load());
  lease_->Release();
}

}  // namespace host
