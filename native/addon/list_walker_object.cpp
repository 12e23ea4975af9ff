#include "addon/list_walker_object.h"

#include <algorithm>
#include <utility>

#include "addon/address_space_object.h"
#include "addon/arguments.h"
#include "addon/plan_object.h"

namespace vmi {

namespace {

constexpr int64_t kMaxLink = 1 << 20;
constexpr int64_t kMaxNodes = 1 << 24;

Napi::Value WalkLists(Napi::Env env, ListWalkerObject::Walker& walker,
                      const Napi::Value* arguments) {
  ListWalker& lists = *walker.lists;
  const Elements<uint64_t> heads = ToWords(arguments[0], "heads");
  const auto max = static_cast<size_t>(ToInteger(arguments[1], "max", 0, kMaxNodes));
  RowBuffer rows;
  if (!arguments[2].IsUndefined()) {
    const Elements<uint8_t> into = ToBytes(arguments[2], "into");
    rows = {into.data, RowsThatFit(lists.plan(), into.length)};
  }

  Check(env, lists.Walk(heads.data, heads.length, max, rows));
  const size_t count = lists.nodes().size();
  Napi::Value buffer = env.Undefined();
  if (rows.bytes == nullptr || count > rows.capacity) {
    const RowLayout layout(lists.plan(), count);
    auto own = Napi::ArrayBuffer::New(env, static_cast<size_t>(layout.total));
    rows = {static_cast<uint8_t*>(own.Data()), count};
    buffer = own;
  }
  Check(env, lists.Fill(rows));
  lists.Trim();

  auto counts = Napi::Uint32Array::New(env, lists.counts().size());
  std::copy(lists.counts().begin(), lists.counts().end(), counts.Data());
  auto found = Napi::Object::New(env);
  found.Set("count", Napi::Number::New(env, static_cast<double>(count)));
  found.Set("capacity", Napi::Number::New(env, static_cast<double>(rows.capacity)));
  found.Set("buffer", buffer);
  found.Set("counts", counts);
  found.Set("retries", Napi::Number::New(env, lists.retries()));
  return found;
}

}  // namespace

void ListWalkerObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(kName, DefineClass(env, kName, {InstanceMethod<&ListWalkerObject::Walk>("walk")}));
}

ListWalkerObject::ListWalkerObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<ListWalkerObject>(info) {
  const Napi::Env env = info.Env();
  const auto& open = ToObject<AddressSpaceObject>(info[0], "space")->open();
  const Plan& plan = ToObject<PlanObject>(info[1], "plan")->plan();
  const auto link = static_cast<uint32_t>(ToInteger(info[2], "link", 0, kMaxLink));
  Walker walker{open, Check(env, ListWalker::Create(open->space.get(), plan, link))};
  walker_ = std::make_shared<Walker>(std::move(walker));
  const auto self = info.This().As<Napi::Object>();
  self.TypeTag(&kTag);
  Bind<Walker, WalkLists>(self, "walk", walker_);
}

Napi::Value ListWalkerObject::Walk(const Napi::CallbackInfo& info) {
  return CallVerb<Walker, WalkLists>(info,
                                     *ToObject<ListWalkerObject>(info.This(), "this")->walker_);
}

}  // namespace vmi
