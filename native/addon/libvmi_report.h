// libvmiReport() of types/addon.d.ts.
#pragma once

#include <napi.h>

namespace vmi {

Napi::Value LibvmiReport(const Napi::CallbackInfo& info);

}  // namespace vmi
