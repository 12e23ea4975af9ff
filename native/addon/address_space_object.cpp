#include "addon/address_space_object.h"

#include <algorithm>
#include <climits>
#include <string>
#include <utility>
#include <vector>

#include "core/lookup/radix_tree.h"
#include "addon/arguments.h"
#include "addon/finder.h"
#include "addon/bound.h"
#include "addon/instance.h"
#include "addon/memory_object.h"
#include "addon/plan_object.h"

namespace vmi {

namespace {

Result<uint64_t> LoadU64(AddressSpace& space, uint64_t address) {
  uint64_t value;
  Status status = space.ReadExact(address, reinterpret_cast<uint8_t*>(&value), sizeof value);
  if (!status.ok()) return status;
  return value;
}

}  // namespace

namespace verbs {

namespace {

Napi::Value Flush(Napi::Env env, OpenSpace& open, const Napi::Value*) {
  Check(env, open.space->memory()->Check());
  open.Flush();
  return env.Undefined();
}

Napi::Value Translate(Napi::Env env, OpenSpace& open, const Napi::Value* arguments) {
  return FromU64(env, Check(env, open.space->Translate(ToAddress(arguments[0], "address"))));
}

Napi::Value Read(Napi::Env env, OpenSpace& open, const Napi::Value* arguments) {
  const uint64_t address = ToAddress(arguments[0], "address");
  const Elements<uint8_t> into = ToBytes(arguments[1], "into");
  return Napi::Number::New(
      env, static_cast<double>(Check(env, open.space->Read(address, into.data, into.length))));
}

Napi::Value ReadU64(Napi::Env env, OpenSpace& open, const Napi::Value* arguments) {
  return FromU64(env, Check(env, LoadU64(*open.space, ToAddress(arguments[0], "address"))));
}

Napi::Value ReadU32(Napi::Env env, OpenSpace& open, const Napi::Value* arguments) {
  uint32_t value;
  Check(env, open.space->ReadExact(ToAddress(arguments[0], "address"),
                                   reinterpret_cast<uint8_t*>(&value), sizeof value));
  return Napi::Number::New(env, value);
}

Napi::Value LookUp(Napi::Env env, OpenSpace& open, const Napi::Value* arguments) {
  const RadixTree tree = ToTree(arguments[0]);
  const uint64_t head = ToAddress(arguments[1], "head");
  const auto index = static_cast<uint64_t>(ToInteger(arguments[2], "index", 0, INT_MAX));
  return FromU64(env, Check(env, open.look_ups.Find(tree, head, index)));
}

Napi::Value Gather(Napi::Env env, OpenSpace& open, const Napi::Value* arguments) {
  const Plan& plan = ToObject<PlanObject>(arguments[0], "plan")->plan();
  const Elements<uint64_t> bases = ToWords(arguments[1], "bases");
  const Elements<uint8_t> into = ToBytes(arguments[2], "into");
  const RowLayout layout(plan, bases.length);
  if (into.length < layout.total) {
    ThrowRange(env, "into with at least " + std::to_string(layout.total) + " bytes",
               std::to_string(into.length));
  }
  Check(env, open.look_ups.Gather(plan, bases.data, bases.length, {into.data, bases.length}));
  return env.Undefined();
}

}  // namespace

}  // namespace verbs

void AddressSpaceObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(
      kName,
      DefineClass(env, kName,
                  {
                      Getter<AddressSpaceObject, &AddressSpaceObject::Handle>("handle"),
                      InstanceMethod<&AddressSpaceObject::SetWindows>("setWindows"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::Flush>>("flush"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::Translate>>("translate"),
                      InstanceMethod<&AddressSpaceObject::Walk>("walk"),
                      InstanceMethod<&AddressSpaceObject::Mappings>("mappings"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::Read>>("read"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::ReadU64>>("readU64"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::ReadU32>>("readU32"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::LookUp>>("lookUp"),
                      InstanceMethod<&AddressSpaceObject::MakeFinder>("finder"),
                      InstanceMethod<&AddressSpaceObject::Method<verbs::Gather>>("gather"),
                  }));
}

AddressSpaceObject::AddressSpaceObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<AddressSpaceObject>(info) {
  const Napi::Env env = info.Env();
  const auto& memory = ToObject<MemoryObject>(info[0], "memory")->memory();
  const uint64_t root = ToAddress(info[1], "root");
  const auto levels = static_cast<int>(ToInteger(info[2], "levels", 4, 5));
  Check(env, memory->Check());
  open_ = std::make_shared<OpenSpace>(Check(env, AddressSpace::Create(memory, root, levels)));
  const auto self = info.This().As<Napi::Object>();
  self.TypeTag(&kTag);
  Bind<OpenSpace, verbs::Flush>(self, "flush", open_);
  Bind<OpenSpace, verbs::Translate>(self, "translate", open_);
  Bind<OpenSpace, verbs::Read>(self, "read", open_);
  Bind<OpenSpace, verbs::ReadU64>(self, "readU64", open_);
  Bind<OpenSpace, verbs::ReadU32>(self, "readU32", open_);
  Bind<OpenSpace, verbs::LookUp>(self, "lookUp", open_);
  Bind<OpenSpace, verbs::Gather>(self, "gather", open_);
}

template <Verb<OpenSpace> kVerb>
Napi::Value AddressSpaceObject::Method(const Napi::CallbackInfo& info) {
  return CallVerb<OpenSpace, kVerb>(info,
                                    *ToObject<AddressSpaceObject>(info.This(), "this")->open_);
}

AddressSpace& AddressSpaceObject::Receiver(const Napi::CallbackInfo& info) {
  return *ToObject<AddressSpaceObject>(info.This(), "this")->open_->space;
}

void AddressSpaceObject::SetWindows(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  const Elements<uint64_t> words = ToWords(info[0], "windows");
  if (words.length % 3 != 0)
    ThrowRange(info.Env(), "windows as triples", std::to_string(words.length) + " words");
  std::vector<Window> windows(words.length / 3);
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i] = {words.data[i * 3], words.data[i * 3 + 1], words.data[i * 3 + 2]};
  }
  Check(info.Env(), space.memory()->Check());
  Check(info.Env(), space.SetWindows(windows));
}

Napi::Value AddressSpaceObject::Handle(const Napi::CallbackInfo& info) {
  constexpr auto load = [](void* space, uint64_t address) {
    return LoadU64(*static_cast<AddressSpace*>(space), address);
  };
  return Napi::Number::New(
      info.Env(), handle_.Get(Instance::Of(info.Env())->loaders, open_->space.get(), load));
}

Napi::Value AddressSpaceObject::MakeFinder(const Napi::CallbackInfo& info) {
  const auto& open = ToObject<AddressSpaceObject>(info.This(), "this")->open_;
  const RadixTree tree = ToTree(info[0]);
  const uint64_t head = ToAddress(info[1], "head");
  return vmi::MakeFinder(info.Env(), open, tree, head,
                         ToObject<PlanObject>(info[2], "plan")->plan());
}

Napi::Value AddressSpaceObject::Walk(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  std::vector<uint64_t> words;
  for (const AddressSpace::Step& step :
       Check(info.Env(), space.Walk(ToAddress(info[0], "address")))) {
    words.insert(words.end(), {step.level, step.entry_address, step.entry});
  }
  return FromWords(info.Env(), words.data(), words.size());
}

Napi::Value AddressSpaceObject::Mappings(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  const uint64_t start = ToAddress(info[0], "start");
  uint64_t last;
  const bool has_end = ToEnd(info[1], "end", &last);
  const auto max = static_cast<size_t>(ToInteger(info[2], "max", 1, INT_MAX));
  std::vector<uint64_t> words;
  Check(info.Env(), space.memory()->Check());
  if (has_end && start <= last) {
    for (const Window& window : Check(info.Env(), space.Mappings(start, last, max))) {
      words.insert(words.end(), {window.start, window.length, window.physical});
    }
  }
  return FromWords(info.Env(), words.data(), words.size());
}

}  // namespace vmi
