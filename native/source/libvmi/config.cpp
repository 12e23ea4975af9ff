#include "source/libvmi/config.h"

#include <mutex>
#include <utility>

namespace libvmi {
namespace {

// libvmi's parser for libvmi.conf keeps its state in variables of the process.
std::timed_mutex& ParserLock() {
  static auto* lock = new std::timed_mutex;
  return *lock;
}

// vmi_init_error_t as vmi_init_os() sets it. 0.12 had one more value before the last two.
std::string OsErrorText(InitError error, bool renumbered) {
  if (!renumbered && error > 7) --error;
  switch (error) {
    case 4:
      return "libvmi could not set up paging";
    case 5:
      return "libvmi could not find the kernel that its configuration describes";
    case 7:
      return "libvmi found no configuration";
    case 8:
      return "the configuration names no operating system or has no entry for this guest";
    default:
      return "libvmi did not recognise the operating system";
  }
}

Os RunWithTable(const Library& library, Instance instance, Config* config, InitError* error) {
  const Glib& glib = library.glib();
  void* table = glib.g_hash_table_new(glib.g_str_hash, glib.g_str_equal);
  for (ConfigEntry& entry : config->entries) {
    // libvmi loads every number through an addr_t*, also where the value is small.
    static_assert(sizeof(entry.number) == sizeof(Address));
    void* value = entry.is_number ? static_cast<void*>(&entry.number) : entry.text.data();
    glib.g_hash_table_insert(table, entry.key.data(), value);
  }
  const Os os = library.calls().vmi_init_os(instance, ConfigMode::kHashTable, table, error);
  glib.g_hash_table_destroy(table);
  return os;
}

vmi::Error Refused(std::string why) {
  vmi::Error error;
  error.code = vmi::Code::kUnsupported;
  error.message = std::move(why);
  return error;
}

}  // namespace

vmi::Result<Os> InitOs(const Library& library, Instance instance, Config config,
                       std::chrono::milliseconds patience) {
  const Calls& calls = library.calls();
  if (calls.vmi_init_os == nullptr) return Refused("this libvmi has no vmi_init_os");
  InitError error = 0;
  Os os = 0;
  switch (config.mode) {
    case ConfigMode::kHashTable:
      if (!library.glib().usable())
        return Refused("this libvmi is linked to no GLib that takes a GHashTable");
      os = RunWithTable(library, instance, &config, &error);
      break;
    case ConfigMode::kJsonPath:
      os = calls.vmi_init_os(instance, ConfigMode::kJsonPath, config.text.data(), &error);
      break;
    case ConfigMode::kString:
    case ConfigMode::kGlobalFile: {
      std::unique_lock<std::timed_mutex> lock(ParserLock(), patience);
      if (!lock.owns_lock())
        return Refused("libvmi's configuration parser is busy in another instance");
      void* text = config.mode == ConfigMode::kString ? config.text.data() : nullptr;
      os = calls.vmi_init_os(instance, config.mode, text, &error);
      break;
    }
  }
  if (os == 0) return Refused(OsErrorText(error, calls.vmi_pagecache_flush != nullptr));
  return os;
}

}  // namespace libvmi
