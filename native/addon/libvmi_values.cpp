#include "addon/libvmi_values.h"

#include <utility>

#include "addon/arguments.h"

namespace vmi {

using libvmi::Duration;
using libvmi::Kind;
using libvmi::Value;

namespace {

constexpr int64_t kLongestDeadline = 24 * 60 * 60 * 1000;
// Number.MAX_SAFE_INTEGER.
constexpr int64_t kLargestExact = 9007199254740991;

Napi::Value FromValue(Napi::Env env, const Value& value) {
  switch (value.kind) {
    case Kind::kUnsigned:
      return Napi::BigInt::New(env, value.number);
    case Kind::kSigned:
      return Napi::BigInt::New(env, static_cast<int64_t>(value.number));
    case Kind::kString:
      return Napi::String::New(env, value.text);
    case Kind::kBytes:
      return Napi::Buffer<char>::Copy(env, value.text.data(), value.text.size());
    case Kind::kNull:
      break;
  }
  return env.Null();
}

}  // namespace

std::string ToText(const Napi::Value& value, const char* name) {
  if (!value.IsString()) ThrowType(value.Env(), std::string(name) + " as a string", value);
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) {
    ThrowRange(value.Env(), std::string(name) + " without a zero byte", "one with");
  }
  return text;
}

bool ToFlag(const Napi::Value& value, const char* name) {
  if (value.IsUndefined()) return false;
  if (!value.IsBoolean()) ThrowType(value.Env(), std::string(name) + " as a boolean", value);
  return value.As<Napi::Boolean>().Value();
}

Duration ToDeadline(const Napi::Value& value) {
  return Duration(ToInteger(value, "deadline", 1, kLongestDeadline));
}

int64_t ToTicket(const Napi::Value& value) { return ToInteger(value, "ticket", 1, kLargestExact); }

Value ToArgument(const Napi::Value& from, const libvmi::Parameter& parameter,
                 const std::string& name) {
  const Napi::Env env = from.Env();
  Value into;
  into.kind = parameter.kind;
  switch (parameter.kind) {
    case Kind::kUnsigned: {
      into.number = from.IsNumber()
                        ? static_cast<uint64_t>(ToInteger(from, name.c_str(), 0, kLargestExact))
                        : ToAddress(from, name.c_str());
      if (into.number > parameter.limit) {
        ThrowRange(env, name + " between 0 and " + Hex(parameter.limit), Hex(into.number));
      }
      break;
    }
    case Kind::kSigned: {
      const auto greatest = static_cast<int64_t>(parameter.limit >> 1);
      into.number = static_cast<uint64_t>(ToInteger(from, name.c_str(), -greatest - 1, greatest));
      break;
    }
    case Kind::kString:
      into.text = ToText(from, name.c_str());
      break;
    case Kind::kBytes: {
      const Elements<uint8_t> bytes = ToBytes(from, name.c_str());
      into.text.assign(reinterpret_cast<const char*>(bytes.data), bytes.length);
      break;
    }
    case Kind::kNull:
      break;
  }
  return into;
}

libvmi::Domain ToDomain(const Napi::Object& options) {
  const Napi::Env env = options.Env();
  libvmi::Domain out;
  const std::string driver = ToText(options.Get("driver"), "driver");
  if (driver == "xen") {
    out.mode = libvmi::Mode::kXen;
  } else if (driver == "kvm") {
    out.mode = libvmi::Mode::kKvm;
  } else if (driver == "file") {
    out.mode = libvmi::Mode::kFile;
  } else {
    ThrowRange(env, "driver 'xen', 'kvm' or 'file'", "'" + driver + "'");
  }
  const Napi::Value id = options.Get("id");
  if (id.IsUndefined()) {
    out.name = ToText(options.Get("name"), "name");
  } else {
    out.by_id = true;
    out.id = ToAddress(id, "id");
  }
  out.events = ToFlag(options.Get("events"), "events");
  return out;
}

libvmi::Config ToConfig(const Napi::Value& kind_value, const Napi::Value& value) {
  const Napi::Env env = value.Env();
  const std::string kind = ToText(kind_value, "kind");
  libvmi::Config config;
  if (kind == "global") {
    config.mode = libvmi::ConfigMode::kGlobalFile;
  } else if (kind == "string" || kind == "json") {
    config.mode = kind == "string" ? libvmi::ConfigMode::kString : libvmi::ConfigMode::kJsonPath;
    config.text = ToText(value, "configuration");
  } else if (kind == "table") {
    if (!value.IsArray()) ThrowType(env, "configuration as an Array", value);
    const auto pairs = value.As<Napi::Array>();
    for (uint32_t i = 0; i < pairs.Length(); ++i) {
      const Napi::Value element = pairs.Get(i);
      if (!element.IsArray()) ThrowType(env, "entry as an Array", element);
      const auto pair = element.As<Napi::Array>();
      libvmi::ConfigEntry entry;
      entry.key = ToText(pair.Get(0u), "key");
      const Napi::Value from = pair.Get(1u);
      entry.is_number = !from.IsString();
      if (entry.is_number) {
        entry.number = ToAddress(from, entry.key.c_str());
      } else {
        entry.text = ToText(from, entry.key.c_str());
      }
      config.entries.push_back(std::move(entry));
    }
  } else {
    ThrowRange(env, "kind 'table', 'string', 'json' or 'global'", "'" + kind + "'");
  }
  return config;
}

Napi::Value FromOutcome(Napi::Env env, const libvmi::Outcome& outcome, const std::string& log) {
  Napi::Object result = Napi::Object::New(env);
  Napi::Array values = Napi::Array::New(env, outcome.values.size());
  for (size_t i = 0; i < outcome.values.size(); ++i) {
    values.Set(static_cast<uint32_t>(i), FromValue(env, outcome.values[i]));
  }
  result.Set("failed", outcome.failed);
  result.Set("values", values);
  result.Set("log", log);
  return result;
}

}  // namespace vmi
