#include "libvmi.h"

#include <mutex>
#include <unordered_set>
#include <utility>

#include "../source/libvmi_call.h"
#include "../source/libvmi_config.h"
#include "../source/libvmi_library.h"
#include "../source/libvmi_session.h"
#include "../source/libvmi_source.h"

namespace vmi::addon {
namespace {

using libvmi::Kind;
using libvmi::Library;
using libvmi::Session;
using libvmi::Value;

// How long the end of an environment waits for libvmi to resume and let go of the guest.
constexpr Session::Duration kExitPatience{2000};

Napi::Array ToArray(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  for (size_t i = 0; i < strings.size(); ++i) array.Set(static_cast<uint32_t>(i), strings[i]);
  return array;
}

Napi::Value Report(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsUndefined() && !info[0].IsString()) {
    return ThrowTypeError(env, "library must be a string");
  }
  const std::string path = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : std::string();
  std::vector<libvmi::Attempt> attempts;
  const std::shared_ptr<const Library> library = Library::Open(path, &attempts);

  Napi::Object report = Napi::Object::New(env);
  Napi::Array tried = Napi::Array::New(env, attempts.size());
  for (size_t i = 0; i < attempts.size(); ++i) {
    Napi::Object attempt = Napi::Object::New(env);
    attempt.Set("name", attempts[i].name);
    attempt.Set("error", attempts[i].error);
    tried.Set(static_cast<uint32_t>(i), attempt);
  }
  report.Set("loaded", library != nullptr);
  report.Set("tried", tried);
  if (library == nullptr) return report;
  report.Set("path", library->path());
  report.Set("version", library->version());
  report.Set("needed", ToArray(env, library->missing_needed()));
  report.Set("missing", ToArray(env, library->missing_optional()));
  const std::vector<libvmi::Driver> found = library->ProbeDrivers();
  Napi::Array drivers = Napi::Array::New(env, found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    Napi::Object driver = Napi::Object::New(env);
    driver.Set("name", found[i].name);
    if (found[i].presence != libvmi::Driver::Presence::kUnknown) {
      driver.Set("present", found[i].presence == libvmi::Driver::Presence::kYes);
    }
    driver.Set("missing", ToArray(env, found[i].missing));
    drivers.Set(static_cast<uint32_t>(i), driver);
  }
  report.Set("drivers", drivers);
  return report;
}

Napi::Value ToJs(Napi::Env env, const Value& value) {
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

Napi::Value ToJs(Napi::Env env, const libvmi::Outcome& outcome, const std::string& log) {
  Napi::Object result = Napi::Object::New(env);
  Napi::Array values = Napi::Array::New(env, outcome.values.size());
  for (size_t i = 0; i < outcome.values.size(); ++i) {
    values.Set(static_cast<uint32_t>(i), ToJs(env, outcome.values[i]));
  }
  result.Set("failed", outcome.failed);
  result.Set("values", values);
  result.Set("log", log);
  return result;
}

bool FromJs(const Napi::Value& from, const libvmi::Parameter& parameter, Value* into) {
  into->kind = parameter.kind;
  switch (parameter.kind) {
    case Kind::kUnsigned: {
      if (from.IsBigInt()) {
        bool lossless = false;
        into->number = from.As<Napi::BigInt>().Uint64Value(&lossless);
        return lossless && into->number <= parameter.limit;
      }
      if (!from.IsNumber()) return false;
      const double number = from.As<Napi::Number>().DoubleValue();
      if (!(number >= 0 && number <= 9007199254740991.0)) return false;
      into->number = static_cast<uint64_t>(number);
      return static_cast<double>(into->number) == number && into->number <= parameter.limit;
    }
    case Kind::kSigned: {
      const int64_t greatest = static_cast<int64_t>(parameter.limit >> 1);
      int64_t number = 0;
      if (from.IsBigInt()) {
        bool lossless = false;
        number = from.As<Napi::BigInt>().Int64Value(&lossless);
        if (!lossless) return false;
      } else {
        if (!from.IsNumber()) return false;
        const double value = from.As<Napi::Number>().DoubleValue();
        if (!(value >= -9007199254740991.0 && value <= 9007199254740991.0)) return false;
        number = static_cast<int64_t>(value);
        if (static_cast<double>(number) != value) return false;
      }
      into->number = static_cast<uint64_t>(number);
      return number >= -greatest - 1 && number <= greatest;
    }
    case Kind::kString:
      if (!from.IsString()) return false;
      into->text = from.As<Napi::String>().Utf8Value();
      return into->text.find('\0') == std::string::npos;
    case Kind::kBytes: {
      if (!from.IsTypedArray() || from.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) return false;
      const auto bytes = from.As<Napi::Uint8Array>();
      into->text.assign(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
      return true;
    }
    case Kind::kNull:
      break;
  }
  return false;
}

// Brings what a session's thread produced into one environment, as long as that lives.
class Bridge : public std::enable_shared_from_this<Bridge> {
 public:
  // Makes the promise's value; its second argument is the reason for a rejection.
  using Make = std::function<Napi::Value(Napi::Env, Napi::Value* rejection)>;

  static std::shared_ptr<Bridge> New(Napi::Env env) {
    std::shared_ptr<Bridge> bridge(new Bridge);
    napi_value name = Napi::String::New(env, "libvmi");
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, Settle,
                                        &bridge->function_) != napi_ok) {
      return nullptr;
    }
    napi_unref_threadsafe_function(env, bridge->function_);
    return bridge;
  }

  // On the environment's thread. The event loop lives as long as a promise is expected.
  void Expect(Napi::Env env, uint64_t ticket) {
    if (expected_.empty()) napi_ref_threadsafe_function(env, function_);
    expected_.insert(ticket);
  }
  // On the environment's thread: nothing waits for this any more.
  void Forget(Napi::Env env, uint64_t ticket) {
    if (expected_.erase(ticket) != 0 && expected_.empty()) napi_unref_threadsafe_function(env, function_);
  }

  // On any thread.
  void Deliver(uint64_t ticket, Napi::Promise::Deferred deferred, Make make) {
    auto* delivery = new Delivery{shared_from_this(), ticket, deferred, std::move(make)};
    const std::lock_guard<std::mutex> lock(mutex_);
    if (function_ == nullptr ||
        napi_call_threadsafe_function(function_, delivery, napi_tsfn_nonblocking) != napi_ok) {
      delete delivery;
    }
  }

  // On the environment's thread, once: it ends, or nobody can wait any more.
  void Detach() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (function_ == nullptr) return;
    napi_release_threadsafe_function(function_, napi_tsfn_abort);
    function_ = nullptr;
  }

 private:
  struct Delivery {
    std::shared_ptr<Bridge> bridge;
    uint64_t ticket;
    Napi::Promise::Deferred deferred;
    Make make;
  };

  Bridge() = default;

  static void Settle(napi_env raw, napi_value, void*, void* data) {
    const std::unique_ptr<Delivery> delivery(static_cast<Delivery*>(data));
    if (raw == nullptr) return;
    const Napi::Env env(raw);
    const Napi::HandleScope scope(env);
    delivery->bridge->Forget(env, delivery->ticket);
    Napi::Value rejection;
    const Napi::Value value = delivery->make(env, &rejection);
    if (rejection.IsEmpty()) {
      delivery->deferred.Resolve(value);
    } else {
      delivery->deferred.Reject(rejection);
    }
  }

  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  std::unordered_set<uint64_t> expected_;
};

bool ReadOptions(const Napi::Object& options, libvmi::SessionOptions* out, std::string* library) {
  const Napi::Value driver = options.Get("driver");
  const Napi::Value name = options.Get("name");
  const Napi::Value id = options.Get("id");
  const Napi::Value path = options.Get("library");
  const Napi::Value deadline = options.Get("deadline");
  const Napi::Value direct = options.Get("direct");
  if (!driver.IsString() || !direct.IsBoolean() || !deadline.IsNumber()) return false;
  const std::string mode = driver.As<Napi::String>().Utf8Value();
  if (mode == "xen") {
    out->mode = libvmi::Mode::kXen;
  } else if (mode == "kvm") {
    out->mode = libvmi::Mode::kKvm;
  } else if (mode == "file") {
    out->mode = libvmi::Mode::kFile;
  } else {
    return false;
  }
  if (!id.IsUndefined()) {
    Value number;
    if (!FromJs(id, {Kind::kUnsigned, 64, ~uint64_t{0}}, &number)) return false;
    out->by_id = true;
    out->id = number.number;
  } else {
    Value text;
    if (!FromJs(name, {Kind::kString, 0, 0}, &text)) return false;
    out->name = std::move(text.text);
  }
  if (!path.IsUndefined()) {
    if (!path.IsString()) return false;
    *library = path.As<Napi::String>().Utf8Value();
  }
  const double milliseconds = deadline.As<Napi::Number>().DoubleValue();
  if (!(milliseconds >= 1 && milliseconds <= 86400000.0)) return false;
  out->deadline = Session::Duration(static_cast<int64_t>(milliseconds));
  out->direct = direct.As<Napi::Boolean>().Value();
  return true;
}

class LibvmiHandle : public Napi::ObjectWrap<LibvmiHandle> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Libvmi",
                       {
                           InstanceMethod<&LibvmiHandle::Has>("has"),
                           InstanceMethod<&LibvmiHandle::Attach>("attach"),
                           InstanceMethod<&LibvmiHandle::Call>("call"),
                           InstanceMethod<&LibvmiHandle::CallNow>("callNow"),
                           InstanceMethod<&LibvmiHandle::InitOs>("initOs"),
                           InstanceMethod<&LibvmiHandle::Withdraw>("withdraw"),
                           InstanceMethod<&LibvmiHandle::GiveUp>("giveUp"),
                           InstanceMethod<&LibvmiHandle::OpenMemory>("memory"),
                           InstanceMethod<&LibvmiHandle::Close>("close"),
                           InstanceAccessor<&LibvmiHandle::Path>("library"),
                           InstanceAccessor<&LibvmiHandle::Version>("version"),
                       });
  }

  explicit LibvmiHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LibvmiHandle>(info) {
    const Napi::Env env = info.Env();
    libvmi::SessionOptions options;
    std::string path;
    if (!info[0].IsObject() || !ReadOptions(info[0].As<Napi::Object>(), &options, &path)) {
      ThrowTypeError(env, "not the options of a libvmi instance");
      return;
    }
    std::vector<libvmi::Attempt> attempts;
    const std::shared_ptr<const Library> library = Library::Open(path, &attempts);
    if (library == nullptr) {
      std::string message = "cannot load libvmi:";
      for (const libvmi::Attempt& attempt : attempts) message += " " + attempt.name + " (" + attempt.error + ")";
      Throw(env, {Code::kLibraryMissing, message});
      return;
    }
    if (!library->missing_needed().empty()) {
      std::string message = library->path() + " is too old or no libvmi: it lacks";
      for (const std::string& symbol : library->missing_needed()) message += " " + symbol;
      Throw(env, {Code::kLibraryMissing, message});
      return;
    }
    bridge_ = Bridge::New(env);
    auto session = Session::Start(library, std::move(options));
    if (!session.ok() || bridge_ == nullptr) {
      Throw(env, session.ok() ? Error{Code::kAttach, "cannot queue results of libvmi"} : session.TakeError());
      return;
    }
    session_ = session.value();
    end_ = new End{session_, bridge_};
    napi_add_env_cleanup_hook(env, AtEnd, end_);
  }

  ~LibvmiHandle() override {
    if (end_ != nullptr) {
      napi_remove_env_cleanup_hook(Env(), AtEnd, end_);
      delete end_;
    }
    if (session_ != nullptr) session_->Close([] {});
    if (bridge_ != nullptr) bridge_->Detach();
  }

 private:
  // What has to happen when the environment ends first.
  struct End {
    std::shared_ptr<Session> session;
    std::shared_ptr<Bridge> bridge;
  };
  static void AtEnd(void* data) {
    auto* end = static_cast<End*>(data);
    end->bridge->Detach();
    end->session->CloseNow(kExitPatience);
  }

  // A promise to be, and the number by which it can be withdrawn.
  struct Pending {
    uint64_t ticket;
    Napi::Promise::Deferred deferred;
    Napi::Object object;
  };
  Pending Expect(Napi::Env env) {
    const uint64_t ticket = ++last_ticket_;
    Pending pending{ticket, Napi::Promise::Deferred::New(env), Napi::Object::New(env)};
    pending.object.Set("ticket", static_cast<double>(ticket));
    pending.object.Set("done", pending.deferred.Promise());
    bridge_->Expect(env, ticket);
    return pending;
  }
  // `make` gives the value when all went well.
  Session::Finish Finisher(const Pending& pending, std::function<Napi::Value(Napi::Env, const std::string&)> make) {
    return [bridge = bridge_, ticket = pending.ticket, deferred = pending.deferred, make = std::move(make)](
               Status status, std::string log) {
      // std::function copies, a Status does not.
      auto shared = std::make_shared<Status>(std::move(status));
      bridge->Deliver(ticket, deferred,
                      [shared, make, log = std::move(log)](Napi::Env env, Napi::Value* rejection) -> Napi::Value {
                        if (shared->ok()) return make(env, log);
                        *rejection = ToJsError(env, shared->error());
                        rejection->As<Napi::Object>().Set("log", log);
                        return env.Undefined();
                      });
    };
  }

  Napi::Value Has(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsString()) return ThrowTypeError(env, "name must be a string");
    const std::string name = info[0].As<Napi::String>().Utf8Value();
    const libvmi::Calls& calls = session_->library().calls();
    if (name == "vmi_init_os") return Napi::Boolean::New(env, calls.vmi_init_os != nullptr);
    const libvmi::Call* call = libvmi::FindCall(name);
    return Napi::Boolean::New(env, call != nullptr && call->available(calls));
  }

  Napi::Value Path(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), session_->library().path());
  }
  Napi::Value Version(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), session_->library().version());
  }

  Napi::Value Attach(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Session::Duration deadline;
    if (!ReadDeadline(info[0], &deadline)) return ThrowTypeError(env, "deadline must be milliseconds");
    Pending pending = Expect(env);
    tickets_[pending.ticket] = session_->Attach(
        Finisher(pending, [](Napi::Env env, const std::string& log) { return Napi::String::New(env, log); }), deadline);
    return pending.object;
  }

  static bool ReadDeadline(const Napi::Value& value, Session::Duration* deadline) {
    if (!value.IsNumber()) return false;
    const double milliseconds = value.As<Napi::Number>().DoubleValue();
    if (!(milliseconds >= 1 && milliseconds <= 86400000.0)) return false;
    *deadline = Session::Duration(static_cast<int64_t>(milliseconds));
    return true;
  }

  // The call and its arguments; null after an exception.
  const libvmi::Call* ReadCall(const Napi::CallbackInfo& info, std::vector<Value>* arguments) {
    const Napi::Env env = info.Env();
    if (!info[0].IsString() || !info[1].IsArray()) {
      ThrowTypeError(env, "expected a name and an array of arguments");
      return nullptr;
    }
    const std::string name = info[0].As<Napi::String>().Utf8Value();
    const libvmi::Call* call = libvmi::FindCall(name);
    if (call == nullptr || !call->available(session_->library().calls())) {
      Throw(env, {Code::kUnsupported, session_->library().path() + " has no " + name});
      return nullptr;
    }
    const auto array = info[1].As<Napi::Array>();
    if (array.Length() != call->parameters.size()) {
      ThrowTypeError(env, name + " takes " + std::to_string(call->parameters.size()) + " arguments");
      return nullptr;
    }
    arguments->resize(call->parameters.size());
    for (uint32_t i = 0; i < arguments->size(); ++i) {
      if (!FromJs(array.Get(i), call->parameters[i], &(*arguments)[i])) {
        ThrowTypeError(env, "argument " + std::to_string(i) + " of " + name + " has the wrong type or range");
        return nullptr;
      }
    }
    return call;
  }

  struct Invocation {
    std::shared_ptr<Session> session;
    const libvmi::Call* call;
    std::vector<Value> arguments;
    libvmi::Outcome outcome;

    void Run(libvmi::Instance instance) {
      if (instance == nullptr || !call->invoke(session->library(), instance, arguments, &outcome)) {
        outcome.failed = true;
      } else if (!outcome.failed && call->name == std::string("vmi_pause_vm")) {
        session->NotePaused(true);
      } else if (!outcome.failed && call->name == std::string("vmi_resume_vm")) {
        session->NotePaused(false);
      }
    }
  };

  Napi::Value Call(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto invocation = std::make_shared<Invocation>();
    invocation->session = session_;
    invocation->call = ReadCall(info, &invocation->arguments);
    if (invocation->call == nullptr) return env.Undefined();
    Session::Duration deadline;
    if (!ReadDeadline(info[2], &deadline)) return ThrowTypeError(env, "deadline must be milliseconds");
    Pending pending = Expect(env);
    tickets_[pending.ticket] = session_->Post(
        invocation->call->name, [invocation](const libvmi::Calls&, libvmi::Instance instance) { invocation->Run(instance); },
        Finisher(pending,
                 [invocation](Napi::Env env, const std::string& log) { return ToJs(env, invocation->outcome, log); }),
        deadline);
    return pending.object;
  }

  Napi::Value CallNow(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto invocation = std::make_shared<Invocation>();
    invocation->session = session_;
    invocation->call = ReadCall(info, &invocation->arguments);
    if (invocation->call == nullptr) return env.Undefined();
    const auto work = [invocation](const libvmi::Calls&, libvmi::Instance instance) { invocation->Run(instance); };
    std::string log;
    if (!session_->TryDirect(work)) {
      Status status = session_->Run(invocation->call->name, work, &log);
      if (!status.ok()) return Throw(env, status.Take());
    }
    return ToJs(env, invocation->outcome, log);
  }

  Napi::Value InitOs(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    libvmi::Config config;
    Session::Duration deadline;
    if (!ReadConfig(info, &config) || !ReadDeadline(info[2], &deadline)) {
      return ThrowTypeError(env, "not a configuration for libvmi");
    }
    Pending pending = Expect(env);
    auto os = std::make_shared<libvmi::Os>(0);
    Session::Finish finish = Finisher(
        pending, [os](Napi::Env env, const std::string&) -> Napi::Value { return Napi::Number::New(env, *os); });
    tickets_[pending.ticket] = libvmi::InitOs(
        session_, std::move(config),
        [os, finish = std::move(finish)](Result<libvmi::Os> result, std::string log) {
          if (result.ok()) *os = result.value();
          finish(result.ok() ? Status() : Status(result.TakeError()), std::move(log));
        },
        deadline);
    return pending.object;
  }

  static bool ReadConfig(const Napi::CallbackInfo& info, libvmi::Config* config) {
    if (!info[0].IsString()) return false;
    const std::string kind = info[0].As<Napi::String>().Utf8Value();
    if (kind == "global") {
      config->mode = libvmi::ConfigMode::kGlobalFile;
      return true;
    }
    if (kind == "string" || kind == "json") {
      config->mode = kind == "string" ? libvmi::ConfigMode::kString : libvmi::ConfigMode::kJsonPath;
      Value text;
      if (!FromJs(info[1], {Kind::kString, 0, 0}, &text)) return false;
      config->text = std::move(text.text);
      return true;
    }
    if (kind != "table" || !info[1].IsArray()) return false;
    config->mode = libvmi::ConfigMode::kHashTable;
    const auto pairs = info[1].As<Napi::Array>();
    if (pairs.Length() > 1024) return false;
    for (uint32_t i = 0; i < pairs.Length(); ++i) {
      const Napi::Value element = pairs.Get(i);
      if (!element.IsArray()) return false;
      const auto pair = element.As<Napi::Array>();
      Value key;
      Value value;
      if (!FromJs(pair.Get(0u), {Kind::kString, 0, 0}, &key)) return false;
      const Napi::Value from = pair.Get(1u);
      const bool is_number = !from.IsString();
      if (!FromJs(from, {is_number ? Kind::kUnsigned : Kind::kString, 64, ~uint64_t{0}}, &value)) return false;
      config->entries.push_back({std::move(key.text), is_number, value.number, std::move(value.text)});
    }
    return true;
  }

  // The session's number for one of this object's; 0 when it is unknown.
  Session::Ticket Find(const Napi::Value& value) {
    if (!value.IsNumber()) return 0;
    const double number = value.As<Napi::Number>().DoubleValue();
    if (!(number >= 1 && number <= 9007199254740991.0)) return 0;
    const auto found = tickets_.find(static_cast<uint64_t>(number));
    return found != tickets_.end() ? found->second : 0;
  }

  Napi::Value Withdraw(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Session::Ticket ticket = Find(info[0]);
    if (ticket == 0) return Napi::Boolean::New(env, false);
    // Its promise is left alone: whoever withdraws has stopped waiting for it.
    bridge_->Forget(env, static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
    return Napi::Boolean::New(env, session_->Withdraw(ticket) == Session::Withdrawn::kNotStarted);
  }

  Napi::Value GiveUp(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Session::Ticket ticket = Find(info[0]);
    Status status = session_->Poison(ticket);
    if (status.ok()) return env.Undefined();
    bridge_->Forget(env, static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
    return Napi::String::New(env, status.error().message);
  }

  Napi::Value OpenMemory(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_biguint64_array) {
      return ThrowTypeError(env, "segments must be a BigUint64Array");
    }
    if (Status state = session_->State(); !state.ok()) return Throw(env, state.Take());
    const auto triples = info[0].As<Napi::BigUint64Array>();
    std::vector<libvmi::Segment> segments;
    for (size_t i = 0; i + 2 < triples.ElementLength(); i += 3) {
      segments.push_back({triples[i], triples[i + 1], triples[i + 2]});
    }
    auto source = libvmi::Source::Create(session_, std::move(segments));
    if (!source.ok()) return Throw(env, source.TakeError());
    return NewMemory(env, std::move(source.value()));
  }

  Napi::Value Close(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Pending pending = Expect(env);
    const auto finish =
        Finisher(pending, [](Napi::Env env, const std::string&) -> Napi::Value { return env.Undefined(); });
    tickets_[pending.ticket] = session_->Close([finish] { finish({}, {}); });
    return pending.object;
  }

  std::shared_ptr<Session> session_;
  std::shared_ptr<Bridge> bridge_;
  End* end_ = nullptr;
  uint64_t last_ticket_ = 0;
  std::unordered_map<uint64_t, Session::Ticket> tickets_;
};

}  // namespace

void ExportLibvmi(Napi::Env env, Napi::Object exports) {
  exports.Set("Libvmi", LibvmiHandle::Define(env));
  exports.Set("libvmiReport", Napi::Function::New<Report>(env, "libvmiReport"));
}

}  // namespace vmi::addon
