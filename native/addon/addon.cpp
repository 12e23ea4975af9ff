// Where Node finds the addon. Each class registers itself.
#include <napi.h>

#include "addon/address_space_object.h"
#include "addon/instance.h"
#include "addon/libvmi_object.h"
#include "addon/list_walker_object.h"
#include "addon/memory_object.h"
#include "addon/plan_object.h"
#include "addon/sampler_object.h"

namespace vmi {

namespace {

Napi::Value Loader(const Napi::CallbackInfo& info) {
  Instance* instance = Instance::Of(info.Env());
  if (instance->loader.IsEmpty())
    instance->loader = Napi::Persistent(instance->loaders->Make(info.Env()));
  return instance->loader.Value();
}

}  // namespace

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance());
  MemoryObject::Register(env, exports);
  PlanObject::Register(env, exports);
  AddressSpaceObject::Register(env, exports);
  ListWalkerObject::Register(env, exports);
  SamplerObject::Register(env, exports);
  LibvmiObject::Register(env, exports);
  exports.Set("loader", Napi::Function::New<Loader>(env, "loader"));
  return exports;
}

}  // namespace vmi

using vmi::Init;
NODE_API_MODULE(vmi_addon, Init)
