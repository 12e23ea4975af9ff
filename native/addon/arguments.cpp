#include "addon/arguments.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace vmi {

namespace {

const char* NameOf(Code code) {
  switch (code) {
    case Code::kMisuse:
      break;
    case Code::kLibraryMissing:
      return "VMI_LIBRARY_MISSING";
    case Code::kAttach:
      return "VMI_ATTACH";
    case Code::kClosed:
      return "VMI_CLOSED";
    case Code::kBusy:
      return "VMI_BUSY";
    case Code::kFault:
      return "VMI_FAULT";
    case Code::kSymbol:
      return "VMI_SYMBOL";
    case Code::kCorrupt:
      return "VMI_CORRUPT";
    case Code::kUnsupported:
      return "VMI_UNSUPPORTED";
    case Code::kAborted:
      return "VMI_ABORTED";
    case Code::kCrashed:
      return "VMI_CRASHED";
    case Code::kEventsTaken:
      return "VMI_EVENTS_TAKEN";
  }
  return "";
}

std::string FaultMessage(const Fault& fault) {
  std::string message =
      "cannot read " + std::to_string(fault.requested) + " bytes at " + Hex(fault.address) +
      (fault.is_virtual ? " (virtual, cr3 " + Hex(fault.cr3) + ")" : " (physical)");
  if (fault.level > 0) return message + ": not present at level " + std::to_string(fault.level);
  return message + (fault.absent ? ": not in the dump" : ": not in RAM");
}

// What `typeof` says, and the class where that says little.
std::string Describe(const Napi::Value& value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
      return "boolean";
    case napi_number:
      return "number";
    case napi_string:
      return "string";
    case napi_symbol:
      return "symbol";
    case napi_function:
      return "function";
    case napi_bigint:
      return "bigint";
    default:
      break;
  }
  if (value.IsArray()) return "Array";
  if (value.IsTypedArray()) {
    switch (value.As<Napi::TypedArray>().TypedArrayType()) {
      case napi_int8_array:
        return "Int8Array";
      case napi_uint8_array:
        return "Uint8Array";
      case napi_uint8_clamped_array:
        return "Uint8ClampedArray";
      case napi_int16_array:
        return "Int16Array";
      case napi_uint16_array:
        return "Uint16Array";
      case napi_int32_array:
        return "Int32Array";
      case napi_uint32_array:
        return "Uint32Array";
      case napi_float32_array:
        return "Float32Array";
      case napi_float64_array:
        return "Float64Array";
      case napi_bigint64_array:
        return "BigInt64Array";
      case napi_biguint64_array:
        return "BigUint64Array";
      default:
        break;
    }
  }
  return "object";
}

template <typename T>
Elements<T> ToElements(const Napi::Value& value, const char* name, napi_typedarray_type wanted,
                       const char* type) {
  napi_typedarray_type actual;
  size_t length = 0;
  void* data = nullptr;
  // Fails for what is no typed array.
  const napi_status status =
      napi_get_typedarray_info(value.Env(), value, &actual, &length, &data, nullptr, nullptr);
  if (status == napi_ok && actual == wanted)
    return {static_cast<T*>(data), data == nullptr ? 0 : length};
  ThrowType(value.Env(), std::string(name) + " as a " + type, value);
}

std::string NumberText(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

}  // namespace

Napi::Error ToException(Napi::Env env, const Error& error) {
  if (error.code == Code::kMisuse) return Napi::RangeError::New(env, error.message);
  const bool is_fault = error.code == Code::kFault;
  Napi::Error exception =
      Napi::Error::New(env, is_fault ? FaultMessage(error.fault) : error.message);
  exception.Set("code", Napi::String::New(env, NameOf(error.code)));
  if (is_fault) {
    const Fault& fault = error.fault;
    exception.Set("address", FromU64(env, fault.address));
    exception.Set("space", Napi::String::New(env, fault.is_virtual ? "virtual" : "physical"));
    if (fault.is_virtual) exception.Set("cr3", FromU64(env, fault.cr3));
    exception.Set("requested", Napi::Number::New(env, static_cast<double>(fault.requested)));
    exception.Set("transferred", Napi::Number::New(env, static_cast<double>(fault.transferred)));
    exception.Set("level", Napi::Number::New(env, fault.level));
    exception.Set("absent", Napi::Boolean::New(env, fault.absent));
  } else if (error.code == Code::kCrashed) {
    if (!error.signal.empty())
      exception.Set("signal", Napi::String::New(env, error.signal));
    else
      exception.Set("exitCode", Napi::Number::New(env, error.exit_status));
    exception.Set("stderr", Napi::String::New(env, error.output));
  } else if (error.code == Code::kCorrupt) {
    exception.Set("address", FromU64(env, error.address));
    exception.Set("found", Napi::Number::New(env, static_cast<double>(error.found)));
  }
  return exception;
}

void ThrowType(Napi::Env env, const std::string& expected, const Napi::Value& received) {
  throw Napi::TypeError::New(env, "Expected " + expected + " but received " + Describe(received));
}

void ThrowRange(Napi::Env env, const std::string& expected, const std::string& received) {
  throw Napi::RangeError::New(env, "Expected " + expected + " but received " + received);
}

uint64_t ToAddress(const Napi::Value& value, const char* name) {
  uint64_t result = 0;
  bool lossless = false;
  const napi_status status = napi_get_value_bigint_uint64(value.Env(), value, &result, &lossless);
  if (status == napi_ok && lossless) return result;
  if (status != napi_ok) ThrowType(value.Env(), std::string(name) + " as a bigint", value);
  ThrowRange(value.Env(), std::string(name) + " between 0 and 2^64 - 1",
             value.ToString().Utf8Value());
}

bool ToEnd(const Napi::Value& value, const char* name, uint64_t* last) {
  if (!value.IsBigInt()) ThrowType(value.Env(), std::string(name) + " as a bigint", value);
  int sign = 0;
  size_t count = 2;
  uint64_t words[2] = {0, 0};
  const napi_status status = napi_get_value_bigint_words(value.Env(), value, &sign, &count, words);
  const bool in_range = status == napi_ok && sign == 0 &&
                        (count < 2 || (count == 2 && words[1] == 1 && words[0] == 0));
  if (!in_range)
    ThrowRange(value.Env(), std::string(name) + " between 0 and 2^64",
               value.ToString().Utf8Value());
  *last = words[0] - 1;
  return count == 2 || words[0] != 0;
}

int64_t ToInteger(const Napi::Value& value, const char* name, int64_t min, int64_t max) {
  double number = 0;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok) {
    ThrowType(value.Env(), std::string(name) + " as a number", value);
  }
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) ||
      number != std::floor(number)) {
    ThrowRange(value.Env(),
               std::string(name) + " as an integer between " + std::to_string(min) + " and " +
                   std::to_string(max),
               NumberText(number));
  }
  return static_cast<int64_t>(number);
}

Elements<uint8_t> ToBytes(const Napi::Value& value, const char* name) {
  return ToElements<uint8_t>(value, name, napi_uint8_array, "Uint8Array");
}

Elements<uint64_t> ToWords(const Napi::Value& value, const char* name) {
  return ToElements<uint64_t>(value, name, napi_biguint64_array, "BigUint64Array");
}

Elements<int32_t> ToInt32s(const Napi::Value& value, const char* name) {
  return ToElements<int32_t>(value, name, napi_int32_array, "Int32Array");
}

Elements<uint32_t> ToUint32s(const Napi::Value& value, const char* name) {
  return ToElements<uint32_t>(value, name, napi_uint32_array, "Uint32Array");
}

Napi::Value FromU64(Napi::Env env, uint64_t value) { return Napi::BigInt::New(env, value); }

Napi::Value FromWords(Napi::Env env, const uint64_t* words, size_t count) {
  auto array = Napi::BigUint64Array::New(env, count);
  if (count > 0) std::memcpy(array.Data(), words, count * sizeof *words);
  return array;
}

}  // namespace vmi
