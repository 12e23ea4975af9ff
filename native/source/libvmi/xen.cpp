#include "source/libvmi/xen.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

#include <cstring>
#include <fstream>
#include <string>

namespace libvmi {
namespace {

constexpr uint64_t kKibPerPage = 4;
// The first id that is none: DOMID_FIRST_RESERVED. xen/include/public/xen.h.
constexpr uint32_t kDomains = 0x7ff0;
// struct xen_domctl_getdomaininfo has 112 bytes in Xen 4.17. xen/include/public/domctl.h.
constexpr size_t kInfoSize = 4096;
constexpr size_t kDomainAt = 0;
constexpr size_t kFlagsAt = 4;
constexpr size_t kMaxPagesAt = 16;
// XEN_DOMINF_dying and XEN_DOMINF_paused.
constexpr uint32_t kDying = 1u << 0;
constexpr uint32_t kPaused = 1u << 3;

std::string Line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// $LIBVMI_XENCTRL names a library that takes the place of libxenctrl, on any host.
void* OpenLibrary() {
  const char* chosen = getenv("LIBVMI_XENCTRL");
  if (chosen != nullptr && *chosen != '\0') return dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
  if (Line("/sys/hypervisor/type") != "xen") return nullptr;
  // A library of another release cannot control this one's domains.
  const std::string version =
      Line("/sys/hypervisor/version/major") + "." + Line("/sys/hypervisor/version/minor");
  void* library = dlopen(("libxenctrl.so." + version).c_str(), RTLD_NOW | RTLD_LOCAL);
  return library != nullptr ? library : dlopen("libxenctrl.so", RTLD_NOW | RTLD_LOCAL);
}

template <class Function>
bool Find(void* library, const char* name, Function* out) {
  *out = reinterpret_cast<Function>(dlsym(library, name));
  return *out != nullptr;
}

template <class Value>
Value At(const unsigned char* bytes, size_t offset) {
  Value value;
  memcpy(&value, bytes + offset, sizeof value);
  return value;
}

}  // namespace

XenControl::XenControl() {
  library_ = OpenLibrary();
  if (library_ != nullptr) Resolve();
}

void XenControl::Resolve() {
  if (!Find(library_, "xc_interface_open", &open_) ||
      !Find(library_, "xc_interface_close", &close_) ||
      !Find(library_, "xc_domain_getinfolist", &list_) ||
      !Find(library_, "xc_domain_setmaxmem", &set_) ||
      !Find(library_, "xc_domain_unpause", &unpause_)) {
    return;
  }
  // Absent from a libxenctrl for another architecture.
  Find(library_, "xc_monitor_resume", &monitor_resume_);
  Find(library_, "xc_monitor_disable", &monitor_disable_);
  interface_ = open_(nullptr, nullptr, 0);
}

XenControl::~XenControl() {
  if (interface_ != nullptr) close_(interface_);
  if (library_ != nullptr) dlclose(library_);
}

int XenControl::Info(uint32_t first, unsigned char* into) const {
  memset(into, 0, kInfoSize);
  if (interface_ == nullptr) return -1;
  const int count = list_(interface_, first, 1, into);
  return count == 1 && At<uint16_t>(into, kDomainAt) < first ? 0 : count;
}

std::vector<XenLimit> XenControl::Limits() const {
  std::vector<XenLimit> all;
  alignas(8) unsigned char info[kInfoSize];
  // One at a time, since the distance of two of them is not known.
  for (uint32_t next = 0; next < kDomains && Info(next, info) == 1;) {
    const uint32_t domain = At<uint16_t>(info, kDomainAt);
    all.push_back({domain, At<uint64_t>(info, kMaxPagesAt)});
    next = domain + 1;
  }
  return all;
}

std::optional<XenLimit> XenControl::LimitOf(uint32_t domain) const {
  alignas(8) unsigned char info[kInfoSize];
  if (Info(domain, info) != 1 || At<uint16_t>(info, kDomainAt) != domain) return std::nullopt;
  return XenLimit{domain, At<uint64_t>(info, kMaxPagesAt)};
}

void XenControl::SetLimit(const XenLimit& limit) const {
  if (interface_ != nullptr) set_(interface_, limit.domain, limit.pages * kKibPerPage);
}

std::optional<XenControl::State> XenControl::StateOf(uint32_t domain) const {
  alignas(8) unsigned char info[kInfoSize];
  const int count = Info(domain, info);
  if (count < 0) return std::nullopt;
  State state;
  if (count == 0 || At<uint16_t>(info, kDomainAt) != domain) {
    state.gone = true;
    return state;
  }
  const auto flags = At<uint32_t>(info, kFlagsAt);
  state.gone = (flags & kDying) != 0;
  state.paused = (flags & kPaused) != 0;
  return state;
}

void XenControl::Unpause(uint32_t domain) const {
  if (interface_ != nullptr) unpause_(interface_, domain);
}

// XEN_VM_EVENT_RESUME takes the answers that are on the ring, as a listener's own notice makes Xen
// do, and is refused where there is no ring (xen/common/vm_event.c, vm_event_resume).
std::optional<bool> XenControl::MonitorIsOn(uint32_t domain) const {
  if (interface_ == nullptr || monitor_resume_ == nullptr) return std::nullopt;
  return monitor_resume_(interface_, domain) == 0;
}

bool XenControl::TurnMonitorOff(uint32_t domain) const {
  return interface_ != nullptr && monitor_disable_ != nullptr &&
         monitor_disable_(interface_, domain) == 0;
}

}  // namespace libvmi
