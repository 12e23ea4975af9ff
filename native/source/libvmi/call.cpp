#include "source/libvmi/call.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

namespace libvmi {
namespace {

// No name or path of libvmi's is longer; guest data never passes through here as a string.
constexpr size_t kMaxString = 4096;
// The most one call reads; what a hostile length may cost.
constexpr uint64_t kMaxBytes = 64 << 20;

struct Context {
  const Library& library;
  Instance instance;
  const std::vector<Value>& arguments;
  size_t next = 0;
  bool consistent = true;

  const Value& Take() { return arguments[next++]; }
};

template <class T>
constexpr bool kIsNumber = std::is_integral_v<T> || std::is_enum_v<T>;

template <class T>
constexpr Parameter NumberParameter() {
  const unsigned bits = sizeof(T) * 8;
  return {std::is_signed_v<T> ? Kind::kSigned : Kind::kUnsigned, bits, ~uint64_t{0} >> (64 - bits)};
}

template <class T>
Value NumberValue(T value) {
  Value result;
  if constexpr (std::is_signed_v<T>) {
    result.kind = Kind::kSigned;
    result.number = static_cast<uint64_t>(static_cast<int64_t>(value));
  } else {
    result.kind = Kind::kUnsigned;
    result.number = static_cast<uint64_t>(value);
  }
  return result;
}

// One parameter of a prototype: takes what it needs from the arguments, gives the call its value,
// and adds what the call wrote to the results.
template <class T, class = void>
struct Slot;

template <>
struct Slot<Instance> {
  static void Describe(std::vector<Parameter>*) {}
  explicit Slot(Context* context) : value(context->instance) {}
  Instance get() { return value; }
  void Finish(Outcome*) {}
  Instance value;
};

template <class T>
struct Slot<T, std::enable_if_t<kIsNumber<T>>> {
  static void Describe(std::vector<Parameter>* out) { out->push_back(NumberParameter<T>()); }
  explicit Slot(Context* context) : value(static_cast<T>(context->Take().number)) {}
  T get() { return value; }
  void Finish(Outcome*) {}
  T value;
};

template <>
struct Slot<const char*> {
  static void Describe(std::vector<Parameter>* out) { out->push_back({Kind::kString, 0, 0}); }
  explicit Slot(Context* context) : value(context->Take().text.c_str()) {}
  const char* get() { return value; }
  void Finish(Outcome*) {}
  const char* value;
};

// const T*: a number that the call reads.
template <class T>
struct Slot<const T*, std::enable_if_t<kIsNumber<T> && !std::is_same_v<T, char>>> {
  static void Describe(std::vector<Parameter>* out) { out->push_back(NumberParameter<T>()); }
  explicit Slot(Context* context) : value(static_cast<T>(context->Take().number)) {}
  const T* get() { return &value; }
  void Finish(Outcome*) {}
  T value;
};

// T*: a number that the call writes.
template <class T>
struct Slot<T*, std::enable_if_t<kIsNumber<T> && !std::is_const_v<T>>> {
  static void Describe(std::vector<Parameter>*) {}
  explicit Slot(Context*) { memset(&value, kUntouched, sizeof(value)); }
  T* get() { return &value; }
  void Finish(Outcome* outcome) {
    T untouched;
    memset(&untouched, kUntouched, sizeof(untouched));
    // Narrow results may well be this value; libvmi's traps are all 8 bytes wide.
    if (sizeof(T) == 8 && value == untouched) {
      outcome->failed = true;
      outcome->values.emplace_back();
    } else {
      outcome->values.push_back(NumberValue(value));
    }
  }
  static constexpr int kUntouched = 0xa5;
  T value;
};

// void*: a buffer that the call fills; the argument before it is its length.
template <>
struct Slot<void*> {
  static void Describe(std::vector<Parameter>* out) { out->back().limit = kMaxBytes; }
  explicit Slot(Context* context) : bytes(context->arguments[context->next - 1].number, '\0') {}
  void* get() { return bytes.data(); }
  void Finish(Outcome* outcome) {
    Value value;
    value.kind = Kind::kBytes;
    value.text = std::move(bytes);
    outcome->values.push_back(std::move(value));
  }
  std::string bytes;
};

// const void*: bytes that the call reads; the argument before it is their length.
template <>
struct Slot<const void*> {
  static void Describe(std::vector<Parameter>* out) { out->push_back({Kind::kBytes, 0, 0}); }
  explicit Slot(Context* context) {
    const uint64_t length = context->arguments[context->next - 1].number;
    const std::string& bytes = context->Take().text;
    if (length > bytes.size()) context->consistent = false;
    value = bytes.data();
  }
  const void* get() { return value; }
  void Finish(Outcome*) {}
  const void* value;
};

template <>
struct Slot<const AccessContext*> {
  static void Describe(std::vector<Parameter>* out) {
    out->push_back(NumberParameter<uint32_t>());
    out->push_back(NumberParameter<uint64_t>());
    out->push_back(NumberParameter<uint64_t>());
  }
  explicit Slot(Context* context) : nested(context->library.nested()) {
    const auto mechanism = static_cast<uint32_t>(context->Take().number);
    const uint64_t root = context->Take().number;
    const uint64_t address = context->Take().number;
    v0.mechanism = mechanism + 1;
    v0.address = address;
    v0.page_table = mechanism == kMechanismPageTable ? root : 0;
    v0.pid = mechanism == kMechanismPid ? static_cast<Pid>(root) : 0;
    v1.version = kAccessContextVersion;
    v1.mechanism = mechanism;
    v1.address = address;
    v1.page_table_or_pid = root;
  }
  const AccessContext* get() {
    const void* context = nested ? static_cast<const void*>(&v1) : &v0;
    return static_cast<const AccessContext*>(context);
  }
  void Finish(Outcome*) {}
  bool nested;
  AccessContextV0 v0 = {};
  AccessContextV1 v1 = {};
};

template <class R>
void AddReturn(R result, Outcome* outcome) {
  if constexpr (std::is_same_v<R, Status>) {
    if (result != Status::kSuccess) outcome->failed = true;
  } else if constexpr (std::is_pointer_v<R>) {
    Value value;
    if (result == nullptr) {
      outcome->failed = true;
    } else {
      value.kind = Kind::kString;
      value.text.assign(result, strnlen(result, kMaxString));
      // A string that is not const is the caller's to free.
      if constexpr (!std::is_const_v<std::remove_pointer_t<R>>) free(result);
    }
    outcome->values.push_back(std::move(value));
  } else {
    outcome->values.push_back(NumberValue(result));
  }
}

template <auto Member, class = decltype(Member)>
struct Bound;

template <auto Member, class R, class... A>
struct Bound<Member, R (*Calls::*)(A...)> {
  static std::vector<Parameter> Describe() {
    std::vector<Parameter> parameters;
    (Slot<A>::Describe(&parameters), ...);
    return parameters;
  }
  static bool Available(const Calls& calls) { return calls.*Member != nullptr; }
  static bool Invoke(const Library& library, Instance instance, const std::vector<Value>& arguments,
                     Outcome* outcome) {
    Context context{library, instance, arguments};
    // Braces: slots take their arguments from left to right.
    std::tuple<Slot<A>...> slots{Slot<A>(&context)...};
    if (!context.consistent) return false;
    std::apply(
        [&](auto&... slot) {
          if constexpr (std::is_void_v<R>) {
            (library.calls().*Member)(slot.get()...);
            (slot.Finish(outcome), ...);
          } else {
            const R result = (library.calls().*Member)(slot.get()...);
            (slot.Finish(outcome), ...);
            AddReturn<R>(result, outcome);
          }
        },
        slots);
    return true;
  }
};

template <auto Member>
Call Bind(const char* name) {
  using Binding = Bound<Member>;
  return {name, Binding::Describe(), Binding::Available, Binding::Invoke};
}

}  // namespace

const std::vector<Call>& AllCalls() {
  static const std::vector<Call> calls = [] {
    std::vector<Call> all;
#define LIBVMI_BIND(since, returns, name, parameters) all.push_back(Bind<&Calls::name>(#name));
    LIBVMI_NEEDED_CALLS(LIBVMI_BIND)
    LIBVMI_OPTIONAL_CALLS(LIBVMI_BIND)
#undef LIBVMI_BIND
    return all;
  }();
  return calls;
}

const Call* FindCall(const std::string& name) {
  const auto& calls = AllCalls();
  const auto found =
      std::find_if(calls.begin(), calls.end(), [&](const Call& call) { return name == call.name; });
  return found != calls.end() ? &*found : nullptr;
}

bool IsListed(const std::string& name) {
  static const char* const names[] = {
#define LIBVMI_NAME(since, returns, name, parameters) #name,
      LIBVMI_CALLS(LIBVMI_NAME)
#undef LIBVMI_NAME
  };
  return std::any_of(std::begin(names), std::end(names),
                     [&](const char* one) { return name == one; });
}

}  // namespace libvmi
