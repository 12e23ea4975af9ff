// class Libvmi of types/addon.d.ts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <napi.h>

#include "source/libvmi/call.h"
#include "source/libvmi/session.h"

namespace vmi {

class PromiseBridge;

class LibvmiObject : public Napi::ObjectWrap<LibvmiObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'6c69'6276, 0x51b8'0e6d'c4f2'937a};
  static constexpr const char* kName = "Libvmi";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit LibvmiObject(const Napi::CallbackInfo& info);
  ~LibvmiObject() override;

 private:
  struct End;
  struct Pending;
  struct Invocation;

  static void AtEnd(void* end);
  static LibvmiObject& Receiver(const Napi::CallbackInfo& info);
  Napi::Value Path(const Napi::CallbackInfo& info);
  Napi::Value Version(const Napi::CallbackInfo& info);
  Napi::Value Nested(const Napi::CallbackInfo& info);
  Napi::Value Has(const Napi::CallbackInfo& info);
  Napi::Value Attach(const Napi::CallbackInfo& info);
  Napi::Value Call(const Napi::CallbackInfo& info);
  Napi::Value CallNow(const Napi::CallbackInfo& info);
  Napi::Value InitOs(const Napi::CallbackInfo& info);
  Napi::Value Listen(const Napi::CallbackInfo& info);
  Napi::Value TakeWrites(const Napi::CallbackInfo& info);
  Napi::Value DroppedWrites(const Napi::CallbackInfo& info);
  Napi::Value Unlisten(const Napi::CallbackInfo& info);
  Napi::Value Withdraw(const Napi::CallbackInfo& info);
  Napi::Value GiveUp(const Napi::CallbackInfo& info);
  Napi::Value OpenMemory(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  Pending Expect(Napi::Env env);
  libvmi::Session::Finish Finisher(
      const Pending& pending, std::function<Napi::Value(Napi::Env, const std::string& log)> make);
  std::shared_ptr<Invocation> ReadCall(const Napi::CallbackInfo& info);
  libvmi::Session::Ticket Find(const Napi::Value& ticket);

  std::shared_ptr<libvmi::Session> session_;
  std::shared_ptr<PromiseBridge> bridge_;
  End* end_ = nullptr;
  uint64_t last_ticket_ = 0;
};

}  // namespace vmi
