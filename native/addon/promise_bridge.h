// Settles promises of one environment from other threads, as long as the environment lives.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <napi.h>

namespace vmi {

class PromiseBridge : public std::enable_shared_from_this<PromiseBridge> {
 public:
  // Makes the promise's value, on the environment's thread. Its second argument is the reason for a
  // rejection.
  using Make = std::function<Napi::Value(Napi::Env, Napi::Value* rejection)>;

  // nullptr where the environment ends.
  static std::shared_ptr<PromiseBridge> New(Napi::Env env);

  // On the environment's thread: a promise is expected under a number of JavaScript's. The event
  // loop lives as long as one is.
  void Expect(Napi::Env env, uint64_t ticket);
  // Keeps another number of an expected promise; Find gives it back, or 0.
  void Assign(uint64_t ticket, uint64_t number);
  uint64_t Find(uint64_t ticket) const;
  // Nothing waits for this promise any more.
  void Forget(Napi::Env env, uint64_t ticket);
  // Once: the environment ends, or nobody can wait any more.
  void Detach();

  // On any thread: settles a promise.
  void Deliver(uint64_t ticket, Napi::Promise::Deferred deferred, Make make);

 private:
  struct Delivery {
    std::shared_ptr<PromiseBridge> bridge;
    uint64_t ticket;
    Napi::Promise::Deferred deferred;
    Make make;
  };

  PromiseBridge() = default;
  static void Settle(napi_env raw, napi_value, void*, void* data);

  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  std::unordered_map<uint64_t, uint64_t> expected_;
};

}  // namespace vmi
