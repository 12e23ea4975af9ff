#include "addon/plan_object.h"

#include <string>

#include "core/gather/row_layout.h"
#include "addon/arguments.h"

namespace vmi {

void PlanObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(kName,
              DefineClass(env, kName, {InstanceMethod<&PlanObject::Unexpected>("unexpected")}));
}

PlanObject::PlanObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PlanObject>(info) {
  const Elements<int32_t> columns = ToInt32s(info[0], "columns");
  plan_ = Check(info.Env(), Plan::Create(columns.data, columns.length));
  if (!info[1].IsUndefined()) {
    const Elements<uint64_t> expectations = ToWords(info[1], "expectations");
    Check(info.Env(), plan_->Expect(expectations.data, expectations.length));
  }
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

Napi::Value PlanObject::Unexpected(const Napi::CallbackInfo& info) {
  const Plan& plan = ToObject<PlanObject>(info.This(), "this")->plan();
  const Elements<uint8_t> rows = ToBytes(info[0], "rows");
  const RowBuffer buffer = {rows.data,
                            static_cast<size_t>(ToInteger(info[1], "capacity", 0, UINT32_MAX))};
  const auto count = static_cast<size_t>(ToInteger(info[2], "count", 0, UINT32_MAX));
  const Elements<uint32_t> into = ToUint32s(info[3], "into");
  const RowLayout layout(plan, buffer.capacity);
  if (rows.length < layout.total) {
    ThrowRange(info.Env(), "rows with at least " + std::to_string(layout.total) + " bytes",
               std::to_string(rows.length));
  }
  if (count > buffer.capacity) {
    ThrowRange(info.Env(), "count of at most " + std::to_string(buffer.capacity),
               std::to_string(count));
  }
  if (into.length < count) {
    ThrowRange(info.Env(), "into with at least " + std::to_string(count) + " elements",
               std::to_string(into.length));
  }
  return Napi::Number::New(info.Env(),
                           static_cast<double>(FindUnexpected(plan, buffer, count, into.data)));
}

}  // namespace vmi
