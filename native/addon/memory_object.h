// class Memory and openMemory() of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "core/memory.h"
#include "addon/bound.h"
#include "addon/loader.h"

namespace vmi {

class MemoryObject : public Napi::ObjectWrap<MemoryObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'6d65'6d6f, 0x9d2c'4a1f'83e5'b067};
  static constexpr const char* kName = "Memory";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit MemoryObject(const Napi::CallbackInfo& info);

  const std::shared_ptr<Memory>& memory() const { return memory_; }

 private:
  static Memory& Receiver(const Napi::CallbackInfo& info);
  Napi::Value Ranges(const Napi::CallbackInfo& info);
  Napi::Value Handle(const Napi::CallbackInfo& info);
  Napi::Value Mapped(const Napi::CallbackInfo& info);
  Napi::Value Writable(const Napi::CallbackInfo& info);
  template <Verb<Memory> kVerb>
  Napi::Value Method(const Napi::CallbackInfo& info);
  Napi::Value ReadMany(const Napi::CallbackInfo& info);
  Napi::Value Absent(const Napi::CallbackInfo& info);
  Napi::Value Scan(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  std::shared_ptr<Memory> memory_;
  LoaderHandle handle_;
};

// Gives a memory of any source its JavaScript object.
Napi::Value NewMemory(Napi::Env env, std::shared_ptr<Memory> memory);

}  // namespace vmi
