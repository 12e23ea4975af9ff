#include "address_space_object.h"

#include <algorithm>
#include <climits>
#include <string>
#include <utility>
#include <vector>

#include "../core/gather.h"
#include "../core/lists.h"
#include "arguments.h"
#include "memory_object.h"
#include "plan_object.h"

namespace vmi {

void AddressSpaceObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(kName, DefineClass(env, kName,
                                 {
                                     InstanceMethod<&AddressSpaceObject::SetWindows>("setWindows"),
                                     InstanceMethod<&AddressSpaceObject::Flush>("flush"),
                                     InstanceMethod<&AddressSpaceObject::Translate>("translate"),
                                     InstanceMethod<&AddressSpaceObject::Walk>("walk"),
                                     InstanceMethod<&AddressSpaceObject::Mappings>("mappings"),
                                     InstanceMethod<&AddressSpaceObject::Read>("read"),
                                     InstanceMethod<&AddressSpaceObject::ReadU64>("readU64"),
                                     InstanceMethod<&AddressSpaceObject::ReadU32>("readU32"),
                                     InstanceMethod<&AddressSpaceObject::Gather>("gather"),
                                     InstanceMethod<&AddressSpaceObject::Lists>("lists"),
                                 }));
}

AddressSpaceObject::AddressSpaceObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<AddressSpaceObject>(info) {
  const Napi::Env env = info.Env();
  const auto& memory = ToObject<MemoryObject>(info[0], "memory")->memory();
  const uint64_t root = ToAddress(info[1], "root");
  const auto levels = static_cast<int>(ToInteger(info[2], "levels", 4, 5));
  Check(env, memory->Check());
  space_ = Check(env, AddressSpace::Create(memory, root, levels));
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

AddressSpace& AddressSpaceObject::Receiver(const Napi::CallbackInfo& info) {
  return *ToObject<AddressSpaceObject>(info.This(), "this")->space_;
}

void AddressSpaceObject::SetWindows(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  const Elements<uint64_t> words = ToWords(info[0], "windows");
  if (words.length % 3 != 0) ThrowRange(info.Env(), "windows as triples", std::to_string(words.length) + " words");
  std::vector<Window> windows(words.length / 3);
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i] = {words.data[i * 3], words.data[i * 3 + 1], words.data[i * 3 + 2]};
  }
  Check(info.Env(), space.memory()->Check());
  Check(info.Env(), space.SetWindows(windows));
}

void AddressSpaceObject::Flush(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  Check(info.Env(), space.memory()->Check());
  space.Flush();
}

Napi::Value AddressSpaceObject::Translate(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  return FromU64(info.Env(), Check(info.Env(), space.Translate(ToAddress(info[0], "address"))));
}

Napi::Value AddressSpaceObject::Walk(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  std::vector<uint64_t> words;
  for (const AddressSpace::Step& step : Check(info.Env(), space.Walk(ToAddress(info[0], "address")))) {
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

Napi::Value AddressSpaceObject::Read(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  const uint64_t address = ToAddress(info[0], "address");
  const Elements<uint8_t> into = ToBytes(info[1], "into");
  return Napi::Number::New(info.Env(),
                           static_cast<double>(Check(info.Env(), space.Read(address, into.data, into.length))));
}

Napi::Value AddressSpaceObject::ReadU64(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  uint64_t value;
  Check(info.Env(), space.ReadExact(ToAddress(info[0], "address"), reinterpret_cast<uint8_t*>(&value), sizeof value));
  return FromU64(info.Env(), value);
}

Napi::Value AddressSpaceObject::ReadU32(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  uint32_t value;
  Check(info.Env(), space.ReadExact(ToAddress(info[0], "address"), reinterpret_cast<uint8_t*>(&value), sizeof value));
  return Napi::Number::New(info.Env(), value);
}

void AddressSpaceObject::Gather(const Napi::CallbackInfo& info) {
  AddressSpace& space = Receiver(info);
  const Plan& plan = ToObject<PlanObject>(info[0], "plan")->plan();
  const Elements<uint64_t> bases = ToWords(info[1], "bases");
  const Elements<uint8_t> into = ToBytes(info[2], "into");
  const RowLayout layout(plan, bases.length);
  if (into.length < layout.total) {
    ThrowRange(info.Env(), "into with at least " + std::to_string(layout.total) + " bytes",
               std::to_string(into.length));
  }
  Check(info.Env(), vmi::Gather(&space, plan, bases.data, bases.length, into.data));
}

Napi::Value AddressSpaceObject::Lists(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  AddressSpace& space = Receiver(info);
  const Plan& plan = ToObject<PlanObject>(info[0], "plan")->plan();
  const Elements<uint64_t> heads = ToWords(info[1], "heads");
  const auto link = static_cast<uint64_t>(ToInteger(info[2], "link", 0, 1 << 20));
  const auto max = static_cast<size_t>(ToInteger(info[3], "max", 0, 1 << 24));

  const ListWalk walk = Check(env, WalkLists(&space, plan, heads.data, heads.length, link, max));
  const RowLayout layout(plan, walk.bases.size());
  auto buffer = Napi::ArrayBuffer::New(env, static_cast<size_t>(layout.total));
  Check(env, FillRows(&space, plan, walk, static_cast<uint8_t*>(buffer.Data())));

  auto counts = Napi::Uint32Array::New(env, walk.counts.size());
  std::copy(walk.counts.begin(), walk.counts.end(), counts.Data());
  auto rows = Napi::Object::New(env);
  rows.Set("count", Napi::Number::New(env, static_cast<double>(walk.bases.size())));
  rows.Set("buffer", buffer);
  rows.Set("counts", counts);
  rows.Set("retries", Napi::Number::New(env, walk.retries));
  return rows;
}

}  // namespace vmi
