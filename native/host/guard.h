// The process that lets a guest of Xen go when the host process does not.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "core/result.h"
#include "source/libvmi/lease.h"

namespace host {

// A child of the host process with a session of its own, so that what ends or stops the host, its
// owner or their terminal leaves it alone. See Lease for what it watches; it watches over nothing
// but that.
class Guard {
 public:
  ~Guard() { Dismiss(); }

  // Starts it and waits until it could act. kUnsupported, with the reason.
  vmi::Status Start(uint32_t domain);
  bool started() const { return socket_ >= 0; }
  // Whether it still watches.
  bool Lives();
  // Sends it home, which it goes only if the lease is no longer held.
  void Dismiss();

  // What that process runs: `libvmi_host --guard DOMAIN`.
  static int Main(uint32_t domain, libvmi::Lease* lease);

 private:
  int socket_ = -1;
  pid_t pid_ = -1;
};

// `libvmi_host --release DOMAIN`: turns the monitor of a domain off, whoever turned it on. 0 when
// it is off afterwards.
int ReleaseMain(uint32_t domain);
// `libvmi_host --monitor DOMAIN`: prints `on`, `off` or `unknown`.
int MonitorMain(uint32_t domain);

}  // namespace host
