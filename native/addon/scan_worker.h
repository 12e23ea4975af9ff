// Memory.scan() of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "core/memory.h"

namespace vmi {

// Starts a scan on libuv's thread pool; gives back its promise.
Napi::Value QueueScan(Napi::Env env, std::shared_ptr<Memory> memory, const Napi::Value& request);

}  // namespace vmi
