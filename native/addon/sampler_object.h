// class Sampler of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "core/sampler/sampler.h"

namespace vmi {

class SamplerObject : public Napi::ObjectWrap<SamplerObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'7361'6d70, 0x51e8'0b94'c6f2'3d7a};
  static constexpr const char* kName = "Sampler";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit SamplerObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value Take(const Napi::CallbackInfo& info);
  Napi::Value Statistics(const Napi::CallbackInfo& info);
  void Stop(const Napi::CallbackInfo& info);

  // Its end joins the thread: at the latest when the environment ends.
  std::unique_ptr<Sampler> sampler_;
};

}  // namespace vmi
