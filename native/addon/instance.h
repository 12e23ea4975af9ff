// What belongs to one environment: the main thread and every worker load the addon for themselves.
#pragma once

#include <memory>

#include <napi.h>

#include "core/memory.h"
#include "addon/loader.h"

namespace vmi {

struct Instance {
  Napi::FunctionReference memory_constructor;
  // The memory that the Memory object under construction wraps; only while NewMemory runs.
  std::shared_ptr<Memory> pending_memory;

  const std::shared_ptr<Loaders> loaders = std::make_shared<Loaders>();
  // The one object over them.
  Napi::ObjectReference loader;

  static Instance* Of(Napi::Env env) { return env.GetInstanceData<Instance>(); }
};

}  // namespace vmi
