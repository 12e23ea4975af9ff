// What vmi_init_os() is told about the guest's kernel.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "source/libvmi/library.h"

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

// vmi_init_os(): the operating system that libvmi recognised, never 0, or kUnsupported with its
// reason. kString and kGlobalFile go through libvmi's parser, which has global state: one at a time
// per process, and `patience` is how long another one is waited for.
vmi::Result<Os> InitOs(const Library& library, Instance instance, Config config,
                       std::chrono::milliseconds patience);

}  // namespace libvmi
