// Xen's own control of its domains, through libxenctrl: what libvmi's Xen driver leaves undone.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace libvmi {

// How much memory a domain may have.
//
// To have room for pages of its own, libvmi's Xen driver lifts the limit of a domain that it
// attaches to (xen_init_vmi), and puts back bytes where KiB are asked for (xen_destroy): 4,096
// times the limit. A guest could then take all memory that Xen has left.
struct XenLimit {
  uint32_t domain = 0;
  uint64_t pages = 0;
};

// libxenctrl, opened at run time. Does nothing where this host has no Xen or no libxenctrl for it.
class XenControl {
 public:
  XenControl();
  ~XenControl();
  XenControl(const XenControl&) = delete;
  XenControl& operator=(const XenControl&) = delete;

  bool usable() const { return interface_ != nullptr; }

  std::vector<XenLimit> Limits() const;
  std::optional<XenLimit> LimitOf(uint32_t domain) const;
  void SetLimit(const XenLimit& limit) const;

  struct State {
    // It has ended, or is about to.
    bool gone = false;
    bool paused = false;
  };
  // Empty when Xen cannot be asked.
  std::optional<State> StateOf(uint32_t domain) const;
  void Unpause(uint32_t domain) const;

  // Whether the domain has a monitor ring: somebody listens for its events, or left the ring
  // behind. Changes nothing. Empty when Xen cannot be asked.
  std::optional<bool> MonitorIsOn(uint32_t domain) const;
  // Ends all events of the domain and lets the vCPUs go that wait for free slots of its ring. Works
  // from any process, whoever turned the monitor on. False when Xen refuses.
  bool TurnMonitorOff(uint32_t domain) const;

 private:
  using Interface = void*;
  void Resolve();
  // struct xen_domctl_getdomaininfo of that domain or the next. 1; 0 when there is none; below 0
  // when Xen cannot be asked.
  int Info(uint32_t first, unsigned char* into) const;

  // xenctrl.h; xc_domain_getinfolist's structure grows from release to release, not so the members
  // in front.
  Interface (*open_)(void* logger, void* builder_logger, unsigned flags) = nullptr;
  int (*close_)(Interface) = nullptr;
  int (*list_)(Interface, uint32_t first, unsigned count, void* into) = nullptr;
  int (*set_)(Interface, uint32_t domain, uint64_t kib) = nullptr;
  int (*unpause_)(Interface, uint32_t domain) = nullptr;
  int (*monitor_resume_)(Interface, uint32_t domain) = nullptr;
  int (*monitor_disable_)(Interface, uint32_t domain) = nullptr;
  void* library_ = nullptr;
  Interface interface_ = nullptr;
};

}  // namespace libvmi
