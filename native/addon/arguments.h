// JavaScript values in, JavaScript exceptions out. A wrong argument throws
// `Expected <what> but received <what>`; nothing here trusts the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <napi.h>

#include "core/result.h"

namespace vmi {

// The one place where a failure of the core becomes a JavaScript exception. `fields` of
// NativeFault and of VMI_CORRUPT come along.
Napi::Error ToException(Napi::Env env, const Error& error);

inline void Check(Napi::Env env, const Status& status) {
  if (!status.ok()) throw ToException(env, status.error());
}

template <typename T>
T Check(Napi::Env env, Result<T> result) {
  if (!result.ok()) throw ToException(env, result.error());
  return std::move(result.value());
}

// Memory of a typed array. Valid until JavaScript runs again.
template <typename T>
struct Elements {
  T* data = nullptr;
  size_t length = 0;
};

[[noreturn]] void ThrowType(Napi::Env env, const std::string& expected,
                            const Napi::Value& received);
[[noreturn]] void ThrowRange(Napi::Env env, const std::string& expected,
                             const std::string& received);

// A bigint that fits 64 bits.
uint64_t ToAddress(const Napi::Value& value, const char* name);
// The same, as the end of a range: 2^64 is allowed. Returns false for an end of 0, else the last
// address.
bool ToEnd(const Napi::Value& value, const char* name, uint64_t* last);
// An integral number between `min` and `max`.
int64_t ToInteger(const Napi::Value& value, const char* name, int64_t min, int64_t max);
Elements<uint8_t> ToBytes(const Napi::Value& value, const char* name);
Elements<uint64_t> ToWords(const Napi::Value& value, const char* name);
Elements<int32_t> ToInt32s(const Napi::Value& value, const char* name);
Elements<uint32_t> ToUint32s(const Napi::Value& value, const char* name);

Napi::Value FromU64(Napi::Env env, uint64_t value);
Napi::Value FromWords(Napi::Env env, const uint64_t* words, size_t count);

// Every wrapped class has a tag: an object of another class, or of another addon, is refused.
template <typename T>
T* ToObject(const Napi::Value& value, const char* name) {
  if (value.IsObject()) {
    Napi::Object object = value.As<Napi::Object>();
    if (object.CheckTypeTag(&T::kTag)) return T::Unwrap(object);
  }
  ThrowType(value.Env(), std::string(name) + " to be a " + T::kName, value);
}

// A getter of the prototype. Unlike the receiver of a method, that of a getter is not checked by
// V8, and Napi::InstanceAccessor unwraps it before anyone can look at its tag.
template <typename T, Napi::Value (T::*kGet)(const Napi::CallbackInfo&)>
Napi::ClassPropertyDescriptor<T> Getter(const char* name) {
  napi_property_descriptor descriptor{};
  descriptor.utf8name = name;
  descriptor.attributes = napi_configurable;
  descriptor.getter = [](napi_env env, napi_callback_info raw) {
    return Napi::details::WrapCallback(env, [&]() -> napi_value {
      const Napi::CallbackInfo info(env, raw);
      return (ToObject<T>(info.This(), "this")->*kGet)(info);
    });
  };
  return descriptor;
}

}  // namespace vmi
