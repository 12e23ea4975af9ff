#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.h"
#include "source/libvmi/abi.h"

namespace libvmi {

// One member a call, null where the library has no such symbol.
struct Calls {
#define LIBVMI_MEMBER(since, returns, name, parameters) returns(*name) parameters = nullptr;
  LIBVMI_CALLS(LIBVMI_MEMBER)
#undef LIBVMI_MEMBER
};

// GLib as libvmi itself is linked to it, for configurations passed as a GHashTable.
struct Glib {
  using Hash = unsigned int (*)(const void*);
  using Equal = int (*)(const void*, const void*);
  void* (*g_hash_table_new)(Hash, Equal) = nullptr;
  int (*g_hash_table_insert)(void*, void*, void*) = nullptr;
  void (*g_hash_table_destroy)(void*) = nullptr;
  Hash g_str_hash = nullptr;
  Equal g_str_equal = nullptr;

  bool usable() const {
    return g_hash_table_new && g_hash_table_insert && g_hash_table_destroy && g_str_hash &&
           g_str_equal;
  }
};

struct Attempt {
  std::string name;
  std::string error;
};

struct Driver {
  const char* name;
  enum class Presence { kNo, kYes, kUnknown } presence;
  // Libraries that the driver opens by name and that this host lacks.
  std::vector<std::string> missing;
};

// What can be told of a library without a guest.
struct Facts {
  // Absolute path of the file that was loaded.
  std::string path;
  // "0.15" from the file name or, failing that, "0.14 or later" and the like from the symbols.
  std::string version;
  // Whether access_context_t is AccessContextV1 and page modes count from VMI_PM_NONE.
  bool nested = false;
  // Symbols that it lacks of those it could do without.
  std::vector<std::string> missing;

  bool Has(const std::string& symbol) const;
};

// libvmi as found on this host. Stays loaded for good: its threads and atexit handlers cannot be
// undone.
class Library {
 public:
  // Tries `path` alone when it is not empty, else $LIBVMI_LIBRARY alone when that is set, else
  // kSoname. Null when nothing could be opened; `attempts` tells why in either case.
  static std::shared_ptr<const Library> Open(const std::string& path,
                                             std::vector<Attempt>* attempts);

  // The same for who needs all of it: kLibraryMissing, with what was tried or what it lacks.
  static vmi::Result<std::shared_ptr<const Library>> OpenUsable(const std::string& path);

  static constexpr const char* kSoname = "libvmi.so.0";

  const Calls& calls() const { return calls_; }
  const Glib& glib() const { return glib_; }
  // Absolute path of the file that was loaded.
  const std::string& path() const { return path_; }
  // Absent symbols of LIBVMI_LIFE_CALLS and LIBVMI_NEEDED_CALLS; the library is of use only when
  // there are none.
  const std::vector<std::string>& missing_needed() const { return missing_needed_; }
  const std::vector<std::string>& missing_optional() const { return missing_optional_; }
  std::string version() const;
  Facts facts() const { return {path_, version(), nested_, missing_optional_}; }
  bool nested() const { return nested_; }
  // Whether its KVM driver is the one that goes through QEMU's monitor, not the one for KVMI.
  bool legacy_kvm() const { return legacy_kvm_; }
  // Looks for each driver's libraries too, which loads them.
  std::vector<Driver> ProbeDrivers() const;

 private:
  Library() = default;

  void* handle_ = nullptr;
  std::string path_;
  Calls calls_;
  Glib glib_;
  bool nested_ = false;
  bool legacy_kvm_ = false;
  std::vector<std::string> missing_needed_;
  std::vector<std::string> missing_optional_;
};

}  // namespace libvmi
