#include "addon/promise_bridge.h"

#include <utility>

namespace vmi {

std::shared_ptr<PromiseBridge> PromiseBridge::New(Napi::Env env) {
  std::shared_ptr<PromiseBridge> bridge(new PromiseBridge);
  napi_value name = Napi::String::New(env, "libvmi");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                      Settle, &bridge->function_) != napi_ok) {
    return nullptr;
  }
  napi_unref_threadsafe_function(env, bridge->function_);
  return bridge;
}

void PromiseBridge::Expect(Napi::Env env, uint64_t ticket) {
  if (expected_.empty()) napi_ref_threadsafe_function(env, function_);
  expected_.emplace(ticket, 0);
}

void PromiseBridge::Assign(uint64_t ticket, uint64_t number) {
  const auto found = expected_.find(ticket);
  if (found != expected_.end()) found->second = number;
}

uint64_t PromiseBridge::Find(uint64_t ticket) const {
  const auto found = expected_.find(ticket);
  return found != expected_.end() ? found->second : 0;
}

void PromiseBridge::Forget(Napi::Env env, uint64_t ticket) {
  if (expected_.erase(ticket) != 0 && expected_.empty())
    napi_unref_threadsafe_function(env, function_);
}

void PromiseBridge::Deliver(uint64_t ticket, Napi::Promise::Deferred deferred, Make make) {
  auto* delivery = new Delivery{shared_from_this(), ticket, deferred, std::move(make)};
  const std::lock_guard<std::mutex> lock(mutex_);
  if (function_ == nullptr ||
      napi_call_threadsafe_function(function_, delivery, napi_tsfn_nonblocking) != napi_ok) {
    delete delivery;
  }
}

void PromiseBridge::Detach() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (function_ == nullptr) return;
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
  function_ = nullptr;
}

void PromiseBridge::Settle(napi_env raw, napi_value, void*, void* data) {
  const std::unique_ptr<Delivery> delivery(static_cast<Delivery*>(data));
  if (raw == nullptr) return;
  const Napi::Env env(raw);
  const Napi::HandleScope scope(env);
  delivery->bridge->Forget(env, delivery->ticket);
  Napi::Value rejection;
  const Napi::Value value = delivery->make(env, &rejection);
  if (rejection.IsEmpty()) {
    delivery->deferred.Resolve(value);
  } else {
    delivery->deferred.Reject(rejection);
  }
}

}  // namespace vmi
