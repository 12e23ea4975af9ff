// What libvmi's Xen driver must be kept from.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace libvmi {

// How much memory a domain may have.
struct XenLimit {
  uint32_t domain = 0;
  uint64_t pages = 0;
};

// The limits of Xen's domains, through libxenctrl.
//
// To have room for pages of its own, libvmi's Xen driver lifts the limit of a domain that it
// attaches to (xen_init_vmi), and puts back bytes where KiB are asked for (xen_destroy): 4,096
// times the limit. A guest could then take all memory that Xen has left.
class XenLimits {
 public:
  // Does nothing where this host has no Xen or no libxenctrl for it.
  XenLimits();
  ~XenLimits();
  XenLimits(const XenLimits&) = delete;
  XenLimits& operator=(const XenLimits&) = delete;

  std::vector<XenLimit> All() const;
  std::optional<XenLimit> Of(uint32_t domain) const;
  void Set(const XenLimit& limit) const;

 private:
  using Interface = void*;
  // xenctrl.h; xc_domain_getinfolist's structure grows from release to release, not so the members
  // in front.
  Interface (*open_)(void* logger, void* builder_logger, unsigned flags) = nullptr;
  int (*close_)(Interface) = nullptr;
  int (*list_)(Interface, uint32_t first, unsigned count, void* into) = nullptr;
  int (*set_)(Interface, uint32_t domain, uint64_t kib) = nullptr;
  void* library_ = nullptr;
  Interface interface_ = nullptr;
};

}  // namespace libvmi
