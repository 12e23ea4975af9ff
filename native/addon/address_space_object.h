// class AddressSpace of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "addon/bound.h"
#include "addon/loader.h"
#include "addon/open_space.h"

namespace vmi {

class AddressSpaceObject : public Napi::ObjectWrap<AddressSpaceObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'7370'6163, 0x61f0'4c82'9e3d'a775};
  static constexpr const char* kName = "AddressSpace";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit AddressSpaceObject(const Napi::CallbackInfo& info);

  const std::shared_ptr<OpenSpace>& open() const { return open_; }

 private:
  static AddressSpace& Receiver(const Napi::CallbackInfo& info);
  template <Verb<OpenSpace> kVerb>
  Napi::Value Method(const Napi::CallbackInfo& info);
  void SetWindows(const Napi::CallbackInfo& info);
  Napi::Value Handle(const Napi::CallbackInfo& info);
  Napi::Value MakeFinder(const Napi::CallbackInfo& info);
  Napi::Value Walk(const Napi::CallbackInfo& info);
  Napi::Value Mappings(const Napi::CallbackInfo& info);

  std::shared_ptr<OpenSpace> open_;
  LoaderHandle handle_;
};

}  // namespace vmi
