#include "plan_object.h"

#include "arguments.h"

namespace vmi {

void PlanObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(kName, DefineClass(env, kName, {}));
}

PlanObject::PlanObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PlanObject>(info) {
  const Elements<int32_t> columns = ToInt32s(info[0], "columns");
  plan_ = Check(info.Env(), Plan::Create(columns.data, columns.length));
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

}  // namespace vmi
