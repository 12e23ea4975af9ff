// What vmi_init_os() is told about the guest's kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "libvmi_session.h"

namespace libvmi {

struct ConfigEntry {
  std::string key;
  bool is_number = false;
  uint64_t number = 0;
  std::string text;
};

struct Config {
  ConfigMode mode = ConfigMode::kHashTable;
  std::vector<ConfigEntry> entries;  // kHashTable
  std::string text;                  // kString: `{…}` as in libvmi.conf; kJsonPath: a path
};

// Queues vmi_init_os(). `finish` gets the operating system libvmi recognised, or kUnsupported with its reason.
// kString and kGlobalFile go through libvmi's parser, which has global state: one at a time per process.
Session::Ticket InitOs(const std::shared_ptr<Session>& session, Config config,
                       std::function<void(vmi::Result<Os>, std::string log)> finish,
                       Session::Duration deadline = Session::Duration::zero());

}  // namespace libvmi
