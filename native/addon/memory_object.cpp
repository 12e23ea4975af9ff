#include "addon/memory_object.h"

#include <climits>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "source/segments.h"
#include "addon/arguments.h"
#include "addon/bound.h"
#include "addon/instance.h"
#include "addon/scan_worker.h"

namespace vmi {

namespace {

SegmentSpec ToSegment(const Napi::Value& value) {
  if (!value.IsObject()) ThrowType(value.Env(), "segment as an object", value);
  const auto object = value.As<Napi::Object>();
  SegmentSpec spec;
  const Napi::Value kind = object.Get("kind");
  if (!kind.IsString()) ThrowType(value.Env(), "segment.kind as a string", kind);
  const std::string text = kind.As<Napi::String>().Utf8Value();
  if (text == "file") {
    spec.kind = SegmentSpec::Kind::kFile;
    spec.fd = static_cast<int>(ToInteger(object.Get("fd"), "segment.fd", 0, INT_MAX));
  } else if (text == "process") {
    spec.kind = SegmentSpec::Kind::kProcess;
  } else if (text == "absent") {
    spec.kind = SegmentSpec::Kind::kAbsent;
  } else {
    ThrowRange(value.Env(), "segment.kind 'file', 'process' or 'absent'", "'" + text + "'");
  }
  spec.physical = ToAddress(object.Get("physical"), "segment.physical");
  spec.length = ToAddress(object.Get("length"), "segment.length");
  if (spec.kind == SegmentSpec::Kind::kAbsent) return spec;
  spec.offset = ToAddress(object.Get("offset"), "segment.offset");
  const Napi::Value anonymous = object.Get("anonymous");
  if (!anonymous.IsUndefined()) {
    if (!anonymous.IsBoolean()) ThrowType(value.Env(), "segment.anonymous as a boolean", anonymous);
    spec.anonymous =
        spec.kind == SegmentSpec::Kind::kProcess && anonymous.As<Napi::Boolean>().Value();
  }
  const Napi::Value present = object.Get("present");
  if (!present.IsUndefined()) {
    if (spec.kind != SegmentSpec::Kind::kFile)
      ThrowRange(value.Env(), "segment.present with kind 'file' only", "'" + text + "'");
    const Elements<uint8_t> bits = ToBytes(present, "segment.present");
    spec.present.assign(bits.data, bits.data + bits.length);
    if (spec.present.empty()) ThrowRange(value.Env(), "segment.present with a bit a page", "none");
  }
  return spec;
}

Napi::Value OpenMemory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) ThrowType(env, "options as an object", info[0]);
  const auto options = info[0].As<Napi::Object>();
  const Napi::Value list = options.Get("segments");
  if (!list.IsArray()) ThrowType(env, "segments as an Array", list);
  const auto array = list.As<Napi::Array>();
  std::vector<SegmentSpec> segments;
  const uint32_t count = array.Length();
  for (uint32_t i = 0; i < count; ++i) segments.push_back(ToSegment(array.Get(i)));
  std::optional<pid_t> pid;
  const Napi::Value pid_value = options.Get("pid");
  if (!pid_value.IsUndefined()) pid = static_cast<pid_t>(ToInteger(pid_value, "pid", 1, INT_MAX));

  const Napi::Value write = options.Get("write");
  if (!write.IsUndefined() && !write.IsBoolean()) ThrowType(env, "write as a boolean", write);
  const bool writable = write.IsBoolean() && write.As<Napi::Boolean>().Value();

  auto source = Check(env, OpenSegments(std::move(segments), pid, writable));
  return NewMemory(env, std::make_shared<Memory>(std::move(source)));
}

Result<uint64_t> LoadU64(void* memory, uint64_t address) {
  return static_cast<Memory*>(memory)->ReadU64(address);
}

}  // namespace

namespace verbs {

namespace {

Napi::Value Begin(Napi::Env env, Memory& memory, const Napi::Value*) {
  Check(env, memory.Begin());
  return env.Undefined();
}

Napi::Value Read(Napi::Env env, Memory& memory, const Napi::Value* arguments) {
  const uint64_t address = ToAddress(arguments[0], "address");
  const Elements<uint8_t> into = ToBytes(arguments[1], "into");
  return Napi::Number::New(
      env, static_cast<double>(Check(env, memory.Read(address, into.data, into.length))));
}

Napi::Value Write(Napi::Env env, Memory& memory, const Napi::Value* arguments) {
  const uint64_t address = ToAddress(arguments[0], "address");
  const Elements<uint8_t> from = ToBytes(arguments[1], "from");
  return Napi::Number::New(
      env, static_cast<double>(Check(env, memory.Write(address, from.data, from.length))));
}

Napi::Value ReadU64(Napi::Env env, Memory& memory, const Napi::Value* arguments) {
  return FromU64(env, Check(env, memory.ReadU64(ToAddress(arguments[0], "address"))));
}

}  // namespace

}  // namespace verbs

Napi::Value NewMemory(Napi::Env env, std::shared_ptr<Memory> memory) {
  Instance* instance = Instance::Of(env);
  instance->pending_memory = std::move(memory);
  return instance->memory_constructor.New({});
}

void MemoryObject::Register(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, kName,
                  {
                      Getter<MemoryObject, &MemoryObject::Ranges>("ranges"),
                      Getter<MemoryObject, &MemoryObject::Mapped>("mapped"),
                      Getter<MemoryObject, &MemoryObject::Writable>("writable"),
                      Getter<MemoryObject, &MemoryObject::Handle>("handle"),
                      InstanceMethod<&MemoryObject::Method<verbs::Begin>>("begin"),
                      InstanceMethod<&MemoryObject::Method<verbs::Read>>("read"),
                      InstanceMethod<&MemoryObject::ReadMany>("readMany"),
                      InstanceMethod<&MemoryObject::Method<verbs::ReadU64>>("readU64"),
                      InstanceMethod<&MemoryObject::Method<verbs::Write>>("write"),
                      InstanceMethod<&MemoryObject::Absent>("absent"),
                      InstanceMethod<&MemoryObject::Scan>("scan"),
                      InstanceMethod<&MemoryObject::Close>("close"),
                  });
  Instance::Of(env)->memory_constructor = Napi::Persistent(constructor);
  exports.Set(kName, constructor);
  exports.Set("openMemory", Napi::Function::New<OpenMemory>(env, "openMemory"));
}

MemoryObject::MemoryObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MemoryObject>(info) {
  memory_ = std::move(Instance::Of(info.Env())->pending_memory);
  if (memory_ == nullptr) {
    throw Napi::TypeError::New(info.Env(),
                               "Expected a call of openMemory() but received new Memory()");
  }
  const auto self = info.This().As<Napi::Object>();
  self.TypeTag(&kTag);
  Bind<Memory, verbs::Begin>(self, "begin", memory_);
  Bind<Memory, verbs::Read>(self, "read", memory_);
  Bind<Memory, verbs::ReadU64>(self, "readU64", memory_);
}

template <Verb<Memory> kVerb>
Napi::Value MemoryObject::Method(const Napi::CallbackInfo& info) {
  return CallVerb<Memory, kVerb>(info, Receiver(info));
}

Memory& MemoryObject::Receiver(const Napi::CallbackInfo& info) {
  return *ToObject<MemoryObject>(info.This(), "this")->memory_;
}

Napi::Value MemoryObject::Ranges(const Napi::CallbackInfo& info) {
  const Memory& memory = Receiver(info);
  std::vector<uint64_t> words;
  for (const Range& range : memory.ranges()) {
    words.push_back(range.start);
    words.push_back(range.length);
  }
  return FromWords(info.Env(), words.data(), words.size());
}

Napi::Value MemoryObject::Mapped(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Receiver(info).mapped());
}

Napi::Value MemoryObject::Writable(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Receiver(info).writable());
}

Napi::Value MemoryObject::ReadMany(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Memory& memory = Receiver(info);
  const Elements<uint64_t> addresses = ToWords(info[0], "addresses");
  const auto length = static_cast<size_t>(ToInteger(info[1], "length", 0, INT_MAX));
  const Elements<uint8_t> into = ToBytes(info[2], "into");
  if (length > 0 && addresses.length > into.length / length) {
    ThrowRange(env,
               "into with at least " + std::to_string(addresses.length) + " * " +
                   std::to_string(length) + " bytes",
               std::to_string(into.length));
  }
  // Requests hold copies of the addresses: `into` may lie over them.
  std::vector<ReadRequest> requests(addresses.length);
  for (size_t i = 0; i < requests.size(); ++i)
    requests[i] = {addresses.data[i], into.data + i * length, length, 0};
  Check(env, memory.ReadMany(requests.data(), requests.size()));
  auto transferred = Napi::Uint32Array::New(env, requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    transferred[i] = static_cast<uint32_t>(requests[i].transferred);
  return transferred;
}

Napi::Value MemoryObject::Handle(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(),
                           handle_.Get(Instance::Of(info.Env())->loaders, memory_.get(), LoadU64));
}

Napi::Value MemoryObject::Scan(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Memory>& memory = ToObject<MemoryObject>(info.This(), "this")->memory_;
  Check(info.Env(), memory->Check());
  return QueueScan(info.Env(), memory, info[0]);
}

Napi::Value MemoryObject::Absent(const Napi::CallbackInfo& info) {
  Memory& memory = Receiver(info);
  const uint64_t address = ToAddress(info[0], "address");
  Check(info.Env(), memory.Check());
  return Napi::Boolean::New(info.Env(), memory.Absent(address));
}

void MemoryObject::Close(const Napi::CallbackInfo& info) { Receiver(info).Close(); }

}  // namespace vmi
