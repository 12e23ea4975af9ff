// Methods that are called thousands of times.
//
// A method of the prototype has to find its object: napi_unwrap and the type tag cost 300 ns, ten
// times the call itself. So every object carries functions of its own for these, whose data is what
// the object wraps. They keep that alive themselves, and `this` means nothing to them: no caller
// can make them see another object.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>

#include <napi.h>

namespace vmi {

// Arguments that were left out are undefined.
constexpr size_t kMaxArguments = 6;
template <typename T>
using Verb = Napi::Value (*)(Napi::Env env, T& object, const Napi::Value* arguments);

// The verb as a method: for the prototype.
template <typename T, Verb<T> kVerb>
Napi::Value CallVerb(const Napi::CallbackInfo& info, T& object) {
  const Napi::Value arguments[kMaxArguments] = {info[0], info[1], info[2],
                                                info[3], info[4], info[5]};
  return kVerb(info.Env(), object, arguments);
}

template <typename T, Verb<T> kVerb>
napi_value CallBound(napi_env env, napi_callback_info info) {
  napi_value values[kMaxArguments];
  size_t count = kMaxArguments;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &count, values, nullptr, &data) != napi_ok) return nullptr;
  try {
    const Napi::Value arguments[kMaxArguments] = {{env, values[0]}, {env, values[1]},
                                                  {env, values[2]}, {env, values[3]},
                                                  {env, values[4]}, {env, values[5]}};
    return kVerb(env, **static_cast<std::shared_ptr<T>*>(data), arguments);
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const std::exception& error) {
    Napi::Error::New(env, error.what()).ThrowAsJavaScriptException();
  }
  return nullptr;
}

// Gives `object` the verb as a function of its own.
template <typename T, Verb<T> kVerb>
void Bind(const Napi::Object& object, const char* name, const std::shared_ptr<T>& target) {
  const napi_env env = object.Env();
  auto owner = std::make_unique<std::shared_ptr<T>>(target);
  napi_value function;
  NAPI_THROW_IF_FAILED_VOID(env, napi_create_function(env, name, NAPI_AUTO_LENGTH,
                                                      CallBound<T, kVerb>, owner.get(), &function));
  const auto release = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<T>*>(data);
  };
  NAPI_THROW_IF_FAILED_VOID(
      env, napi_add_finalizer(env, function, owner.get(), release, nullptr, nullptr));
  owner.release();
  // Read-only, as far as JavaScript goes: it cannot be taken for another's by accident.
  const napi_property_descriptor property = {name,    nullptr,  nullptr,      nullptr,
                                             nullptr, function, napi_default, nullptr};
  NAPI_THROW_IF_FAILED_VOID(env, napi_define_properties(env, object, 1, &property));
}

}  // namespace vmi
