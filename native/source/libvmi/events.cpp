#include "source/libvmi/events.h"

#include <string.h>

#include <string>

namespace libvmi {
namespace {

constexpr uint64_t kCr3 = 20;

}  // namespace

vmi::Status Cr3Events::Start(Instance instance, size_t capacity) {
  const Calls& calls = library_.calls();
  if (registered_) return {vmi::Code::kUnsupported, "writes to CR3 are listened for already"};
  if (calls.vmi_events_version == nullptr || calls.vmi_register_event == nullptr ||
      calls.vmi_clear_event == nullptr || calls.vmi_events_listen == nullptr) {
    return {vmi::Code::kUnsupported, "this libvmi has no events"};
  }
  const uint32_t version = calls.vmi_events_version();
  offset_ = RegisterEventOffset(version);
  if (offset_ == 0) {
    return {vmi::Code::kUnsupported,
            "this libvmi has version " + std::to_string(version) +
                " of the events interface; 7 (libvmi 0.14), 8 and 9 are known here"};
  }
  EventHead head = {};
  head.version = version;
  head.type = kEventRegister;
  head.data = this;
  head.callback = OnEvent;
  RegisterEvent event = {};
  event.reg = kCr3;
  // The vCPU goes on while its event waits in the ring, as long as the ring has room.
  event.async = 1;
  event.in_access = kRegisterAccessWrite;
  memset(event_, 0, sizeof event_);
  memcpy(event_, &head, sizeof head);
  memcpy(event_ + offset_, &event, sizeof event);
  queue_.Reset(capacity);
  if (calls.vmi_register_event(instance, reinterpret_cast<Event*>(event_)) != Status::kSuccess) {
    return {vmi::Code::kUnsupported, "libvmi's driver for this guest reports no writes to CR3"};
  }
  registered_ = true;
  return {};
}

uint32_t Cr3Events::OnEvent(Instance, Event* event) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(event);
  EventHead head;
  memcpy(&head, bytes, sizeof head);
  auto* self = static_cast<Cr3Events*>(head.data);
  RegisterEvent written;
  memcpy(&written, bytes + self->offset_, sizeof written);
  self->queue_.Push({written.value, written.previous, head.vcpu});
  self->Beat();
  return 0;
}

vmi::Status Cr3Events::Listen(Instance instance, Duration timeout) {
  if (!registered_) return {vmi::Code::kUnsupported, "no writes to CR3 are listened for"};
  Beat();
  const Status status =
      library_.calls().vmi_events_listen(instance, static_cast<uint32_t>(timeout.count()));
  Beat();
  if (status != Status::kSuccess)
    return {vmi::Code::kUnsupported, "vmi_events_listen of libvmi failed"};
  return {};
}

vmi::Status Cr3Events::Stop(Instance instance, bool pause) {
  if (!registered_) return {};
  registered_ = false;
  const Calls& calls = library_.calls();
  const bool paused = pause && calls.vmi_pause_vm(instance) == Status::kSuccess;
  // Failures leave nothing to do but to go on.
  (void)calls.vmi_events_listen(instance, 0);
  const Status cleared = calls.vmi_clear_event(instance, reinterpret_cast<Event*>(event_), nullptr);
  (void)calls.vmi_events_listen(instance, 0);
  if (paused) (void)calls.vmi_resume_vm(instance);
  if (cleared != Status::kSuccess)
    return {vmi::Code::kUnsupported, "vmi_clear_event of libvmi failed"};
  return {};
}

}  // namespace libvmi
