// class Plan of types/addon.d.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "core/gather/plan.h"

namespace vmi {

class PlanObject : public Napi::ObjectWrap<PlanObject> {
 public:
  static constexpr napi_type_tag kTag = {0x7669'6d5f'706c'616e, 0xc45b'1e07'7a92'd83f};
  static constexpr const char* kName = "Plan";

  static void Register(Napi::Env env, Napi::Object exports);
  explicit PlanObject(const Napi::CallbackInfo& info);

  const Plan& plan() const { return *plan_; }

 private:
  Napi::Value Unexpected(const Napi::CallbackInfo& info);

  std::unique_ptr<Plan> plan_;
};

}  // namespace vmi
