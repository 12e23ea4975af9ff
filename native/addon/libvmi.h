#pragma once

#include <napi.h>

namespace vmi::addon {

// Adds `Libvmi` and `libvmiReport` to the exports.
void ExportLibvmi(Napi::Env env, Napi::Object exports);

}  // namespace vmi::addon
