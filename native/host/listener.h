// Listens for writes to CR3 in the host process, whatever its owner does.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <optional>

#include "core/result.h"
#include "host/engine_lock.h"
#include "host/guard.h"
#include "source/libvmi/lease.h"
#include "source/libvmi/local.h"
#include "source/libvmi/xen.h"

namespace host {

// A thread that takes what the hypervisor reports and puts it into a bounded queue, so that no
// vCPU ever waits for the owner of this process: one that is stopped, or busy, loses writes.
//
// Methods without "Locked" take the engine's lock themselves.
class Listener {
 public:
  Listener(libvmi::LocalEngine* engine, EngineLock* lock, libvmi::Lease* lease)
      : engine_(engine), lock_(lock), lease_(lease) {}
  ~Listener() { Join(); }

  vmi::Status Start(size_t capacity);
  // What came, or the error that says why no more will come. Does not return while libvmi hangs.
  vmi::Status Take(libvmi::Duration timeout, libvmi::Cr3Writes* writes);
  vmi::Status Stop();
  // Lets go of the guest; later calls do nothing.
  void End();
  // The same for a process that must end now, from any thread: a call that is inside libvmi gets
  // `patience` to return, then Xen's monitor is turned off without libvmi.
  void EndNow(libvmi::Duration patience);

 private:
  static void* ThreadMain(void* self);
  void Loop();
  vmi::Status TurnLocked();
  vmi::Status LookLocked();
  void EndLocked();
  void Join();

  libvmi::LocalEngine* const engine_;
  EngineLock* const lock_;
  libvmi::Lease* const lease_;
  std::optional<libvmi::XenControl> xen_;
  Guard guard_;
  int guards_ = 0;
  std::chrono::steady_clock::time_point next_look_;
  pthread_t thread_ = {};
  bool running_ = false;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> turns_{0};
  // Set before ended_, read after it.
  vmi::Error end_;
  std::atomic<bool> ended_{false};
};

}  // namespace host
