// Who waits for writes to CR3, and what waits for him.
#pragma once

#include <functional>

#include "core/result.h"
#include "source/libvmi/cr3_queue.h"

namespace libvmi {

// The state of a session that listens. Guarded by the session's lock, but for dropped(). What the
// methods give back is to be called without that lock; it may be empty.
class Listening {
 public:
  using Taker = std::function<void(vmi::Status, Cr3Writes)>;
  using Call = std::function<void()>;

  bool active() const { return active_; }
  void Begin(size_t capacity);
  // What came; handed to whoever waits.
  Call Add(const Cr3Writes& batch);
  // There will be no more, and why.
  Call End(vmi::Status reason);
  // Why nobody can wait now: another one does, or nothing will come. What came before the end is
  // handed over before the end is told of.
  vmi::Status Refusal() const;
  Call Wait(Taker taker);
  void Forget() { taker_ = nullptr; }
  // Any thread may ask at any time.
  uint64_t dropped() const { return queue_.dropped(); }

 private:
  Call HandOver();

  bool active_ = false;
  Cr3Queue queue_;
  vmi::Status end_;
  Taker taker_;
};

}  // namespace libvmi
