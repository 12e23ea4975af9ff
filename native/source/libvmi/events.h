// Register events of libvmi: writes to CR3.
#pragma once

#include <cstdint>
#include <vector>

#include "core/result.h"
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
  // kUnsupported, with the reason.
  vmi::Status Start(Instance instance);
  vmi::Status Listen(Instance instance, Duration timeout, std::vector<Cr3Write>* writes);
  // Lets no vCPU wait for an answer that nobody gives: the guest is paused while what is left is
  // taken.
  vmi::Status Stop(Instance instance);

 private:
  static uint32_t OnEvent(Instance, Event* event);

  const Library& library_;
  bool registered_ = false;
  size_t offset_ = 0;
  std::vector<Cr3Write> writes_;
  // vmi_event_t, as large as any of them; libvmi keeps its address.
  alignas(16) unsigned char event_[kMaxEvent] = {};
};

}  // namespace libvmi
