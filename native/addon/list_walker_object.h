// class ListWalker of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "addon/bound.h"
#include "addon/open_space.h"
#include "core/lists/list_walker.h"

namespace vmi {

class ListWalkerObject : public Napi::ObjectWrap<ListWalkerObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'6c69'7374, 0x3fd1'95a6'e08b'724c};
  static constexpr const char* kName = "ListWalker";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit ListWalkerObject(const Napi::CallbackInfo& info);

  // A walker, and the address space that it walks in.
  struct Walker {
    std::shared_ptr<OpenSpace> open;
    std::unique_ptr<ListWalker> lists;
  };

 private:
  Napi::Value Walk(const Napi::CallbackInfo& info);

  std::shared_ptr<Walker> walker_;
};

}  // namespace vmi
