#include "source/libvmi/library.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>

#include <algorithm>
#include <utility>

namespace libvmi {
namespace {

template <class Function>
bool Resolve(void* handle, const char* name, Function* out) {
  *out = reinterpret_cast<Function>(dlsym(handle, name));
  return *out != nullptr;
}

std::string RealPath(void* handle, const std::string& fallback) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) return fallback;
  char buffer[PATH_MAX];
  const char* real = realpath(map->l_name, buffer);
  return real != nullptr ? real : map->l_name;
}

bool Opens(const std::string& name) {
  void* handle = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (handle == nullptr) return false;
  dlclose(handle);
  return true;
}

// The names that libvmi's driver/xen/libxc_wrapper.c and libxs_wrapper.c pass to dlopen().
std::vector<std::string> MissingForXen() {
  std::vector<std::string> missing;
  bool control = Opens("libxenctrl.so");
  for (int minor = 6; minor <= 30 && !control; ++minor) {
    control = Opens("libxenctrl.so.4." + std::to_string(minor));
  }
  if (!control) missing.emplace_back("libxenctrl.so");
  if (!Opens("libxenstore.so")) missing.emplace_back("libxenstore.so");
  return missing;
}

// The names that libvmi's driver/kvm/libvirt_wrapper.c passes to dlopen().
std::vector<std::string> MissingForKvm() {
  std::vector<std::string> missing;
  if (!Opens("libvirt.so.0") && !Opens("libvirt.so")) missing.emplace_back("libvirt.so.0");
  if (!Opens("libvirt-qemu.so.0") && !Opens("libvirt-qemu.so"))
    missing.emplace_back("libvirt-qemu.so.0");
  return missing;
}

}  // namespace

std::shared_ptr<const Library> Library::Open(const std::string& path,
                                             std::vector<Attempt>* attempts) {
  std::string name = path;
  if (name.empty()) {
    const char* variable = getenv("LIBVMI_LIBRARY");
    name = variable != nullptr && variable[0] != '\0' ? variable : kSoname;
  }
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* error = dlerror();
    attempts->push_back({name, error != nullptr ? error : "cannot be opened"});
    return nullptr;
  }
  attempts->push_back({name, {}});

  std::shared_ptr<Library> library(new Library);
  library->handle_ = handle;
  library->path_ = RealPath(handle, name);
#define LIBVMI_NEEDED(since, returns, name, parameters) \
  if (!Resolve(handle, #name, &library->calls_.name)) library->missing_needed_.emplace_back(#name);
#define LIBVMI_OPTIONAL(since, returns, name, parameters) \
  if (!Resolve(handle, #name, &library->calls_.name))     \
    library->missing_optional_.emplace_back(#name);
  LIBVMI_LIFE_CALLS(LIBVMI_NEEDED)
  LIBVMI_NEEDED_CALLS(LIBVMI_NEEDED)
  LIBVMI_CONFIG_CALLS(LIBVMI_OPTIONAL)
  LIBVMI_EVENT_CALLS(LIBVMI_OPTIONAL)
  LIBVMI_OPTIONAL_CALLS(LIBVMI_OPTIONAL)
#undef LIBVMI_NEEDED
#undef LIBVMI_OPTIONAL
  library->nested_ = dlsym(handle, "vmi_nested_pagetable_lookup") != nullptr;
  library->legacy_kvm_ = dlsym(handle, "kvm_get_memory_native") != nullptr;
  // A lookup through the handle searches what libvmi depends on, so this is the GLib it uses.
  Resolve(handle, "g_hash_table_new", &library->glib_.g_hash_table_new);
  Resolve(handle, "g_hash_table_insert", &library->glib_.g_hash_table_insert);
  Resolve(handle, "g_hash_table_destroy", &library->glib_.g_hash_table_destroy);
  Resolve(handle, "g_str_hash", &library->glib_.g_str_hash);
  Resolve(handle, "g_str_equal", &library->glib_.g_str_equal);
  return library;
}

vmi::Result<std::shared_ptr<const Library>> Library::OpenUsable(const std::string& path) {
  std::vector<Attempt> attempts;
  std::shared_ptr<const Library> library = Open(path, &attempts);
  if (library == nullptr) {
    std::string message = "cannot load libvmi:";
    for (const Attempt& attempt : attempts)
      message += " tried " + attempt.name + " (" + attempt.error + ")";
    return {vmi::Code::kLibraryMissing, std::move(message)};
  }
  if (!library->missing_needed().empty()) {
    std::string message = library->path() + " is too old or not libvmi: it lacks";
    for (const std::string& symbol : library->missing_needed()) message += " " + symbol;
    return {vmi::Code::kLibraryMissing, std::move(message)};
  }
  return library;
}

bool Facts::Has(const std::string& symbol) const {
  return std::find(missing.begin(), missing.end(), symbol) == missing.end();
}

std::string Library::version() const {
  // CMake names the file libvmi.so.0.0.MINOR from 0.12 on.
  static const std::string kPrefix = "libvmi.so.0.0.";
  const std::string file = path_.substr(path_.rfind('/') + 1);
  if (file.compare(0, kPrefix.size(), kPrefix) == 0 && file.size() > kPrefix.size()) {
    return "0." + file.substr(kPrefix.size());
  }
  if (nested_) return "0.15 or later";
  if (calls_.vmi_pagecache_flush != nullptr) return "0.14";
  return "older than 0.14";
}

std::vector<Driver> Library::ProbeDrivers() const {
  // libvmi exports its drivers' entry points in every build but those with hidden visibility; with
  // none of them to be seen nothing can be told.
  const bool xen = dlsym(handle_, "xen_init") != nullptr;
  const bool kvm = dlsym(handle_, "kvm_init") != nullptr;
  const bool file = dlsym(handle_, "file_init") != nullptr;
  const bool any = xen || kvm || file;
  const auto presence = [any](bool found) {
    if (!any) return Driver::Presence::kUnknown;
    return found ? Driver::Presence::kYes : Driver::Presence::kNo;
  };
  std::vector<Driver> drivers;
  drivers.push_back(
      {"xen", presence(xen), xen || !any ? MissingForXen() : std::vector<std::string>()});
  drivers.push_back(
      {"kvm", presence(kvm), kvm || !any ? MissingForKvm() : std::vector<std::string>()});
  drivers.push_back({"file", presence(file), {}});
  return drivers;
}

}  // namespace libvmi
