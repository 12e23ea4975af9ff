// loader() of types/addon.d.ts: loads of 8 bytes whose argument and result lie in memory that
// JavaScript has too.
//
// A bigint in and one out cost three times the call. And V8 makes a call of native code twice as
// fast where it always meets the same function, so there is one for all objects of an environment,
// which are told apart by a number.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <napi.h>

#include "core/result.h"

namespace vmi {

// The objects of one environment that can be loaded from. Not thread-safe.
class Loaders {
 public:
  using Load = Result<uint64_t> (*)(void* object, uint64_t address);

  // A number that means this object until it is removed; never 0.
  uint32_t Add(void* object, Load load);
  void Remove(uint32_t handle);

  // A NativeLoader.
  Napi::Object Make(Napi::Env env);

 private:
  struct Entry {
    uint32_t handle = 0;
    void* object = nullptr;
    Load load = nullptr;
  };
  // What both sides see.
  struct Shared {
    uint64_t word = 0;
    uint32_t handle = 0;
  };
  // Of a handle: the entry's number; the rest counts its uses.
  static constexpr uint32_t kIndexBits = 22;
  static constexpr uint32_t kIndexMask = (uint32_t{1} << kIndexBits) - 1;

  static napi_value Run(napi_env env, napi_callback_info info);

  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

// The handle of one object, taken when it is first asked for.
class LoaderHandle {
 public:
  LoaderHandle() = default;
  ~LoaderHandle() {
    if (handle_ != 0) loaders_->Remove(handle_);
  }
  LoaderHandle(const LoaderHandle&) = delete;
  LoaderHandle& operator=(const LoaderHandle&) = delete;

  uint32_t Get(const std::shared_ptr<Loaders>& loaders, void* object, Loaders::Load load) {
    if (handle_ == 0) {
      loaders_ = loaders;
      handle_ = loaders->Add(object, load);
    }
    return handle_;
  }

 private:
  // The environment's data may go before its objects do.
  std::shared_ptr<Loaders> loaders_;
  uint32_t handle_ = 0;
};

}  // namespace vmi
