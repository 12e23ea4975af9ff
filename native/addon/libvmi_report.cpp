#include "addon/libvmi_report.h"

#include <memory>
#include <string>
#include <vector>

#include "source/libvmi/library.h"
#include "addon/libvmi_values.h"

namespace vmi {

using libvmi::Library;

namespace {

Napi::Array ToArray(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  for (size_t i = 0; i < strings.size(); ++i) array.Set(static_cast<uint32_t>(i), strings[i]);
  return array;
}

Napi::Array FromDrivers(Napi::Env env, const Library& library) {
  const std::vector<libvmi::Driver> found = library.ProbeDrivers();
  Napi::Array drivers = Napi::Array::New(env, found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    Napi::Object driver = Napi::Object::New(env);
    driver.Set("name", found[i].name);
    if (found[i].presence != libvmi::Driver::Presence::kUnknown) {
      driver.Set("present", found[i].presence == libvmi::Driver::Presence::kYes);
    }
    driver.Set("missing", ToArray(env, found[i].missing));
    drivers.Set(static_cast<uint32_t>(i), driver);
  }
  return drivers;
}

}  // namespace

Napi::Value LibvmiReport(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = info[0].IsUndefined() ? std::string() : ToText(info[0], "library");
  std::vector<libvmi::Attempt> attempts;
  const std::shared_ptr<const Library> library = Library::Open(path, &attempts);

  Napi::Object report = Napi::Object::New(env);
  Napi::Array tried = Napi::Array::New(env, attempts.size());
  for (size_t i = 0; i < attempts.size(); ++i) {
    Napi::Object attempt = Napi::Object::New(env);
    attempt.Set("name", attempts[i].name);
    attempt.Set("error", attempts[i].error);
    tried.Set(static_cast<uint32_t>(i), attempt);
  }
  report.Set("loaded", library != nullptr);
  report.Set("tried", tried);
  if (library == nullptr) return report;
  report.Set("path", library->path());
  report.Set("version", library->version());
  report.Set("needed", ToArray(env, library->missing_needed()));
  report.Set("missing", ToArray(env, library->missing_optional()));
  report.Set("drivers", FromDrivers(env, *library));
  return report;
}

}  // namespace vmi
