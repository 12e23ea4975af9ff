// class AddressSpace of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "core/paging/address_space.h"
#include "addon/bound.h"
#include "addon/loader.h"

namespace vmi {

class AddressSpaceObject : public Napi::ObjectWrap<AddressSpaceObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'7370'6163, 0x61f0'4c82'9e3d'a775};
  static constexpr const char* kName = "AddressSpace";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit AddressSpaceObject(const Napi::CallbackInfo& info);

 private:
  static AddressSpace& Receiver(const Napi::CallbackInfo& info);
  template <Verb<AddressSpace> kVerb>
  Napi::Value Method(const Napi::CallbackInfo& info);
  void SetWindows(const Napi::CallbackInfo& info);
  Napi::Value Handle(const Napi::CallbackInfo& info);
  Napi::Value MakeFinder(const Napi::CallbackInfo& info);
  Napi::Value Walk(const Napi::CallbackInfo& info);
  Napi::Value Mappings(const Napi::CallbackInfo& info);

  // Keeps the memory alive.
  std::shared_ptr<AddressSpace> space_;
  LoaderHandle handle_;
};

}  // namespace vmi
