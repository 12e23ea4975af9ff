#include "plan_object.h"

#include <string>

#include "arguments.h"

namespace vmi {

void PlanObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(kName, DefineClass(env, kName, {}));
}

PlanObject::PlanObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PlanObject>(info) {
  const Elements<int32_t> columns = ToInt32s(info[0], "columns");
  plan_ = Check(info.Env(), Plan::Create(columns.data, columns.length));
  if (!info[1].IsUndefined()) {
    const Elements<uint64_t> check = ToWords(info[1], "check");
    if (check.length != 3) {
      ThrowRange(info.Env(), "check as (column, mask, value)", std::to_string(check.length) + " numbers");
    }
    Check(info.Env(), plan_->SetCheck({check.data[0], check.data[1], check.data[2]}));
  }
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

}  // namespace vmi
