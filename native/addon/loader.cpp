#include "addon/loader.h"

#include <cstddef>
#include <exception>
#include <string>
#include <utility>

#include "addon/arguments.h"

namespace vmi {

uint32_t Loaders::Add(void* object, Load load) {
  uint32_t index = static_cast<uint32_t>(entries_.size());
  if (free_.empty()) {
    entries_.push_back({});
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Entry& entry = entries_[index];
  const uint32_t uses = (entry.handle >> kIndexBits) + 1;
  entry = {uses << kIndexBits | index, object, load};
  if (entry.handle >> kIndexBits == 0) entry.handle |= uint32_t{1} << kIndexBits;
  return entry.handle;
}

void Loaders::Remove(uint32_t handle) {
  Entry& entry = entries_[handle & kIndexMask];
  entry.object = nullptr;
  free_.push_back(handle & kIndexMask);
}

napi_value Loaders::Run(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  if (napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data) != napi_ok) return nullptr;
  auto* self = static_cast<Loaders*>(data);
  Shared& shared = *self->shared_;
  const uint32_t index = shared.handle & kIndexMask;
  const Entry* entry = index < self->entries_.size() ? &self->entries_[index] : nullptr;
  try {
    if (entry == nullptr || entry->object == nullptr || entry->handle != shared.handle) {
      ThrowRange(env, "handle of a Memory or an AddressSpace", std::to_string(shared.handle));
    }
    shared.word = Check(env, entry->load(entry->object, shared.word));
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const std::exception& error) {
    Napi::Error::New(env, error.what()).ThrowAsJavaScriptException();
  }
  return nullptr;
}

Napi::Object Loaders::Make(Napi::Env env) {
  // Lives as long as the array does, whatever becomes of the environment's data.
  auto kept = std::make_unique<std::shared_ptr<Shared>>(shared_);
  auto buffer = Napi::ArrayBuffer::New(
      env, shared_.get(), sizeof(Shared),
      [](Napi::Env, void*, std::shared_ptr<Shared>* shared) { delete shared; }, kept.get());
  kept.release();
  napi_value function;
  NAPI_THROW_IF_FAILED(env,
                       napi_create_function(env, "load", NAPI_AUTO_LENGTH, Run, this, &function),
                       Napi::Object());
  auto object = Napi::Object::New(env);
  object.Set("word", Napi::TypedArrayOf<uint64_t>::New(env, 1, buffer, offsetof(Shared, word),
                                                       napi_biguint64_array));
  object.Set("handle", Napi::TypedArrayOf<uint32_t>::New(env, 1, buffer, offsetof(Shared, handle),
                                                         napi_uint32_array));
  object.Set("load", Napi::Value(env, function));
  return object;
}

}  // namespace vmi
