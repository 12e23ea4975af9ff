// Register events of libvmi: writes to CR3.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/result.h"
#include "source/libvmi/cr3_queue.h"
#include "source/libvmi/engine.h"
#include "source/libvmi/library.h"

namespace libvmi {

// vmi_event_t changes between releases, and a library takes no layout but its own. It says which
// that is: vmi_events_version() is asked before anything is registered, and one whose layout is not
// known here is not used.
class Cr3Events {
 public:
  explicit Cr3Events(const Library& library) : library_(library) {}

  bool registered() const { return registered_; }
  // What came and was not taken yet. Any thread may take from it while another listens.
  Cr3Queue& queue() { return queue_; }
  // Counts up with every write and every turn of listening: who sees it stand still knows that
  // nobody listens. It must outlive this.
  void SetPulse(std::atomic<uint64_t>* pulse) { pulse_ = pulse; }

  // kUnsupported, with the reason. The queue keeps the latest `capacity` writes.
  vmi::Status Start(Instance instance, size_t capacity);
  // Waits for at most `timeout` for writes, and puts them into the queue.
  vmi::Status Listen(Instance instance, Duration timeout);
  // `pause`: the guest stands while what is left is taken. Xen's needs no such thing: its events
  // wait for no answer, and vCPUs that wait for room in the ring go on when the ring goes.
  vmi::Status Stop(Instance instance, bool pause);
  // Forgets the registration without a word to libvmi.
  void Abandon() { registered_ = false; }

 private:
  static uint32_t OnEvent(Instance, Event* event);
  void Beat() { pulse_->fetch_add(1, std::memory_order_relaxed); }

  const Library& library_;
  bool registered_ = false;
  size_t offset_ = 0;
  Cr3Queue queue_;
  std::atomic<uint64_t> own_pulse_{0};
  std::atomic<uint64_t>* pulse_ = &own_pulse_;
  // vmi_event_t, as large as any of them; libvmi keeps its address.
  alignas(16) unsigned char event_[kMaxEvent] = {};
};

}  // namespace libvmi
