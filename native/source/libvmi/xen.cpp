#include "source/libvmi/xen.h"

#include <dlfcn.h>

#include <cstring>
#include <fstream>
#include <string>

namespace libvmi {
namespace {

constexpr uint64_t kKibPerPage = 4;
// The first id that is none: DOMID_FIRST_RESERVED. xen/include/public/xen.h.
constexpr uint32_t kDomains = 0x7ff0;
// struct xen_domctl_getdomaininfo has 112 bytes in Xen 4.17.
constexpr size_t kInfoSize = 4096;
constexpr size_t kDomainAt = 0;
constexpr size_t kMaxPagesAt = 16;

std::string Line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

template <class Function>
bool Resolve(void* library, const char* name, Function* out) {
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

XenLimits::XenLimits() {
  if (Line("/sys/hypervisor/type") != "xen") return;
  // A library of another release cannot control this one's domains.
  const std::string version =
      Line("/sys/hypervisor/version/major") + "." + Line("/sys/hypervisor/version/minor");
  library_ = dlopen(("libxenctrl.so." + version).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) library_ = dlopen("libxenctrl.so", RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) return;
  if (!Resolve(library_, "xc_interface_open", &open_) ||
      !Resolve(library_, "xc_interface_close", &close_) ||
      !Resolve(library_, "xc_domain_getinfolist", &list_) ||
      !Resolve(library_, "xc_domain_setmaxmem", &set_)) {
    return;
  }
  interface_ = open_(nullptr, nullptr, 0);
}

XenLimits::~XenLimits() {
  if (interface_ != nullptr) close_(interface_);
  if (library_ != nullptr) dlclose(library_);
}

std::vector<XenLimit> XenLimits::All() const {
  std::vector<XenLimit> all;
  if (interface_ == nullptr) return all;
  // One at a time, since the distance of two of them is not known.
  for (uint32_t next = 0; next < kDomains;) {
    alignas(8) unsigned char info[kInfoSize] = {};
    if (list_(interface_, next, 1, info) != 1) break;
    const uint32_t domain = At<uint16_t>(info, kDomainAt);
    if (domain < next) break;
    all.push_back({domain, At<uint64_t>(info, kMaxPagesAt)});
    next = domain + 1;
  }
  return all;
}

std::optional<XenLimit> XenLimits::Of(uint32_t domain) const {
  if (interface_ == nullptr) return std::nullopt;
  alignas(8) unsigned char info[kInfoSize] = {};
  if (list_(interface_, domain, 1, info) != 1 || At<uint16_t>(info, kDomainAt) != domain)
    return std::nullopt;
  return XenLimit{domain, At<uint64_t>(info, kMaxPagesAt)};
}

void XenLimits::Set(const XenLimit& limit) const {
  if (interface_ != nullptr) set_(interface_, limit.domain, limit.pages * kKibPerPage);
}

}  // namespace libvmi
