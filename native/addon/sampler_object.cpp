#include "addon/sampler_object.h"

#include <cmath>
#include <string>
#include <utility>

#include "addon/arguments.h"
#include "addon/memory_object.h"

namespace vmi {

namespace {

// Of each CPU: rq.nr_switches, rq.curr, the current task, the loaded mm, the run queue's lock.
constexpr size_t kCpuWords = 5;
constexpr size_t kWindowWords = 3;
constexpr size_t kTaskOffsets = 8;
constexpr int64_t kMaxInterval = 3'600'000'000'000;

double ToShare(const Napi::Value& value) {
  if (!value.IsNumber()) ThrowType(value.Env(), "share as a number", value);
  const double share = value.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(share) || share < 0 || share > 1)
    ThrowRange(value.Env(), "share between 0 and 1", std::to_string(share));
  return share;
}

uint64_t Offset(int32_t value) {
  return value < 0 ? SwitchLayout::kAbsent : static_cast<uint64_t>(value);
}

SwitchLayout ToLayout(Napi::Env env, const Elements<uint64_t>& cpus,
                      const Elements<uint64_t>& windows, const Elements<int32_t>& task) {
  if (cpus.length % kCpuWords != 0)
    ThrowRange(env, "cpus of five elements each", std::to_string(cpus.length));
  if (windows.length % kWindowWords != 0)
    ThrowRange(env, "windows of three elements each", std::to_string(windows.length));
  if (task.length != kTaskOffsets)
    ThrowRange(env, "task of eight offsets", std::to_string(task.length));
  SwitchLayout layout;
  for (size_t i = 0; i < cpus.length; i += kCpuWords) {
    const uint64_t* words = cpus.data + i;
    layout.cpus.push_back({words[0], words[1], words[2], words[3], words[4]});
  }
  for (size_t i = 0; i < windows.length; i += kWindowWords)
    layout.windows.push_back({windows.data[i], windows.data[i + 1], windows.data[i + 2]});
  layout.task = {Offset(task.data[0]), Offset(task.data[1]), Offset(task.data[2]),
                 Offset(task.data[3]), Offset(task.data[4]), Offset(task.data[5]),
                 Offset(task.data[6]), Offset(task.data[7])};
  return layout;
}

}  // namespace

void SamplerObject::Register(Napi::Env env, Napi::Object exports) {
  exports.Set(kName,
              DefineClass(env, kName,
                          {
                              InstanceMethod<&SamplerObject::Take>("take"),
                              Getter<SamplerObject, &SamplerObject::Statistics>("statistics"),
                              InstanceMethod<&SamplerObject::Stop>("stop"),
                          }));
}

SamplerObject::SamplerObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<SamplerObject>(info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Memory> memory = ToObject<MemoryObject>(info[0], "memory")->memory();
  if (!info[1].IsObject()) ThrowType(env, "options as an object", info[1]);
  const auto object = info[1].As<Napi::Object>();
  // Properties may be getters that run JavaScript: memory of typed arrays is looked at after the
  // last one.
  const Napi::Value cpus = object.Get("cpus");
  const Napi::Value windows = object.Get("windows");
  const Napi::Value task = object.Get("task");
  Sampler::Options options;
  const auto pgd = static_cast<uint64_t>(ToInteger(object.Get("pgd"), "pgd", 0, 1 << 20));
  options.capacity = static_cast<size_t>(
      ToInteger(object.Get("capacity"), "capacity", 1, int64_t{Sampler::kMaxCapacity}));
  options.interval =
      static_cast<uint64_t>(ToInteger(object.Get("interval"), "interval", 0, kMaxInterval));
  options.share = ToShare(object.Get("share"));
  options.layout =
      ToLayout(env, ToWords(cpus, "cpus"), ToWords(windows, "windows"), ToInt32s(task, "task"));
  options.layout.pgd = pgd;
  sampler_ = Check(env, Sampler::Start(memory, std::move(options)));
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

Napi::Value SamplerObject::Take(const Napi::CallbackInfo& info) {
  Sampler& sampler = *ToObject<SamplerObject>(info.This(), "this")->sampler_;
  const Elements<uint64_t> into = ToWords(info[0], "into");
  const size_t count = Check(info.Env(), sampler.Take(into.data, into.length / kRecordWords));
  return Napi::Number::New(info.Env(), static_cast<double>(count));
}

Napi::Value SamplerObject::Statistics(const Napi::CallbackInfo& info) {
  const Sampler::Statistics now =
      ToObject<SamplerObject>(info.This(), "this")->sampler_->statistics();
  const uint64_t words[] = {now.looks,      now.records,     now.dropped,  now.torn,
                            now.unreadable, now.cpu_time,    now.interval, now.late,
                            now.late_time,  now.longest_gap, now.waited};
  return FromWords(info.Env(), words, sizeof words / sizeof *words);
}

void SamplerObject::Stop(const Napi::CallbackInfo& info) {
  ToObject<SamplerObject>(info.This(), "this")->sampler_->Stop();
}

}  // namespace vmi
