#include "source/libvmi/events.h"

#include <string.h>

#include <string>

namespace libvmi {
namespace {

constexpr uint64_t kCr3 = 20;
// What one call of vmi_events_listen may leave here. libvmi's ring holds some dozens.
constexpr size_t kMaxWrites = 1 << 16;

}  // namespace

vmi::Status Cr3Events::Start(Instance instance) {
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
  // The vCPU goes on while its event waits in the ring.
  event.async = 1;
  event.in_access = kRegisterAccessWrite;
  memset(event_, 0, sizeof event_);
  memcpy(event_, &head, sizeof head);
  memcpy(event_ + offset_, &event, sizeof event);
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
  if (self->writes_.size() < kMaxWrites)
    self->writes_.push_back({written.value, written.previous, head.vcpu});
  return 0;
}

vmi::Status Cr3Events::Listen(Instance instance, Duration timeout, std::vector<Cr3Write>* writes) {
  if (!registered_) return {vmi::Code::kUnsupported, "no writes to CR3 are listened for"};
  const Status status =
      library_.calls().vmi_events_listen(instance, static_cast<uint32_t>(timeout.count()));
  writes->insert(writes->end(), writes_.begin(), writes_.end());
  writes_.clear();
  if (status != Status::kSuccess)
    return {vmi::Code::kUnsupported, "vmi_events_listen of libvmi failed"};
  return {};
}

vmi::Status Cr3Events::Stop(Instance instance) {
  if (!registered_) return {};
  registered_ = false;
  const Calls& calls = library_.calls();
  const bool paused = calls.vmi_pause_vm(instance) == Status::kSuccess;
  // Failures leave nothing to do but to go on.
  (void)calls.vmi_events_listen(instance, 0);
  const Status cleared = calls.vmi_clear_event(instance, reinterpret_cast<Event*>(event_), nullptr);
  (void)calls.vmi_events_listen(instance, 0);
  if (paused) (void)calls.vmi_resume_vm(instance);
  writes_.clear();
  if (cleared != Status::kSuccess)
    return {vmi::Code::kUnsupported, "vmi_clear_event of libvmi failed"};
  return {};
}

}  // namespace libvmi
