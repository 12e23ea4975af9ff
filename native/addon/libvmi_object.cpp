#include "addon/libvmi_object.h"

#include <climits>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "source/libvmi/config.h"
#include "source/libvmi/library.h"
#include "source/libvmi/local.h"
#include "source/libvmi/remote.h"
#include "source/libvmi/source.h"
#include "addon/arguments.h"
#include "addon/instance.h"
#include "addon/memory_object.h"

namespace vmi {

using libvmi::Duration;
using libvmi::Kind;
using libvmi::Library;
using libvmi::Session;
using libvmi::Value;

namespace {

// How long the end of an environment waits for libvmi to resume and let go of the guest.
constexpr Duration kExitPatience{2000};
constexpr int64_t kLargestQueue = 1 << 20;
constexpr int64_t kLongestDeadline = 24 * 60 * 60 * 1000;

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

Napi::Array ToArray(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  for (size_t i = 0; i < strings.size(); ++i) array.Set(static_cast<uint32_t>(i), strings[i]);
  return array;
}

Napi::Value Report(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = info[0].IsUndefined() ? std::string() : ToText(info[0], "library");
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

constexpr int64_t kLargestExact = 9007199254740991;

// One argument of a call, as its prototype wants it.
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

}  // namespace

// Brings what a session's thread produced into one environment, as long as that lives.
class LibvmiBridge : public std::enable_shared_from_this<LibvmiBridge> {
 public:
  // Makes the promise's value; its second argument is the reason for a rejection.
  using Make = std::function<Napi::Value(Napi::Env, Napi::Value* rejection)>;

  static std::shared_ptr<LibvmiBridge> New(Napi::Env env) {
    std::shared_ptr<LibvmiBridge> bridge(new LibvmiBridge);
    napi_value name = Napi::String::New(env, "libvmi");
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr,
                                        nullptr, Settle, &bridge->function_) != napi_ok) {
      return nullptr;
    }
    napi_unref_threadsafe_function(env, bridge->function_);
    return bridge;
  }

  // On the environment's thread. The event loop lives as long as a promise is expected.
  void Expect(Napi::Env env, uint64_t ticket) {
    if (expected_.empty()) napi_ref_threadsafe_function(env, function_);
    expected_.emplace(ticket, 0);
  }
  // The session's number of an expected call.
  void Assign(uint64_t ticket, Session::Ticket number) {
    const auto found = expected_.find(ticket);
    if (found != expected_.end()) found->second = number;
  }
  Session::Ticket Find(uint64_t ticket) const {
    const auto found = expected_.find(ticket);
    return found != expected_.end() ? found->second : 0;
  }
  // On the environment's thread: nothing waits for this any more.
  void Forget(Napi::Env env, uint64_t ticket) {
    if (expected_.erase(ticket) != 0 && expected_.empty())
      napi_unref_threadsafe_function(env, function_);
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
    std::shared_ptr<LibvmiBridge> bridge;
    uint64_t ticket;
    Napi::Promise::Deferred deferred;
    Make make;
  };

  LibvmiBridge() = default;

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
  // By their numbers in JavaScript.
  std::unordered_map<uint64_t, Session::Ticket> expected_;
};

struct LibvmiObject::End {
  // What has to happen when the environment ends before the object does.
  std::shared_ptr<Session> session;
  std::shared_ptr<LibvmiBridge> bridge;
};

// A promise to be, and the number by which it can be withdrawn.
struct LibvmiObject::Pending {
  uint64_t ticket;
  Napi::Promise::Deferred deferred;
  Napi::Object object;
};

// One call on its way through the session.
struct LibvmiObject::Invocation {
  std::shared_ptr<Session> session;
  const libvmi::Call* call;
  std::vector<libvmi::Value> arguments;
  // Whether libvmi's caches of guest memory are emptied first.
  bool fresh = false;
  libvmi::Outcome outcome;

  Status Run(libvmi::Engine& engine) { return engine.Invoke(*call, arguments, fresh, &outcome); }
};

namespace {

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

// libvmi in this process or in one of its own.
Result<std::unique_ptr<libvmi::Engine>> OpenEngine(bool isolate, const std::string& path,
                                                   libvmi::Domain domain, Duration deadline) {
  if (isolate) return libvmi::RemoteEngine::Start(path, std::move(domain), deadline);
  Result<std::shared_ptr<const Library>> library = Library::OpenUsable(path);
  if (!library.ok()) return library.TakeError();
  return std::unique_ptr<libvmi::Engine>(
      new libvmi::LocalEngine(std::move(library.value()), std::move(domain), deadline));
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

}  // namespace

void LibvmiObject::Register(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, kName,
                  {
                      Getter<LibvmiObject, &LibvmiObject::Path>("library"),
                      Getter<LibvmiObject, &LibvmiObject::Version>("version"),
                      Getter<LibvmiObject, &LibvmiObject::Nested>("nested"),
                      InstanceMethod<&LibvmiObject::Has>("has"),
                      InstanceMethod<&LibvmiObject::Attach>("attach"),
                      InstanceMethod<&LibvmiObject::Call>("call"),
                      InstanceMethod<&LibvmiObject::CallNow>("callNow"),
                      InstanceMethod<&LibvmiObject::InitOs>("initOs"),
                      InstanceMethod<&LibvmiObject::Listen>("listen"),
                      InstanceMethod<&LibvmiObject::TakeWrites>("takeWrites"),
                      InstanceMethod<&LibvmiObject::Unlisten>("unlisten"),
                      InstanceMethod<&LibvmiObject::Withdraw>("withdraw"),
                      InstanceMethod<&LibvmiObject::GiveUp>("giveUp"),
                      InstanceMethod<&LibvmiObject::OpenMemory>("memory"),
                      InstanceMethod<&LibvmiObject::Close>("close"),
                  });
  exports.Set(kName, constructor);
  exports.Set("libvmiReport", Napi::Function::New<Report>(env, "libvmiReport"));
}

LibvmiObject::LibvmiObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LibvmiObject>(info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) ThrowType(env, "options as an object", info[0]);
  const auto object = info[0].As<Napi::Object>();
  libvmi::Domain domain = ToDomain(object);
  const Napi::Value library = object.Get("library");
  const std::string path = library.IsUndefined() ? std::string() : ToText(library, "library");
  libvmi::SessionOptions options;
  options.deadline = ToDeadline(object.Get("deadline"));
  const Napi::Value direct = object.Get("direct");
  if (!direct.IsBoolean()) ThrowType(env, "direct as a boolean", direct);
  options.direct = direct.As<Napi::Boolean>().Value();
  const bool isolate = ToFlag(object.Get("isolate"), "isolate");
  std::unique_ptr<libvmi::Engine> engine =
      Check(env, OpenEngine(isolate, path, std::move(domain), options.deadline));
  std::shared_ptr<LibvmiBridge> bridge = LibvmiBridge::New(env);
  session_ = Check(env, Session::Start(std::move(engine), options));
  bridge_ = std::move(bridge);
  end_ = new End{session_, bridge_};
  napi_add_env_cleanup_hook(env, AtEnd, end_);
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

LibvmiObject::~LibvmiObject() {
  if (end_ != nullptr) {
    napi_remove_env_cleanup_hook(Env(), AtEnd, end_);
    delete end_;
  }
  if (session_ != nullptr) session_->Close([] {});
  if (bridge_ != nullptr) bridge_->Detach();
}

void LibvmiObject::AtEnd(void* data) {
  auto* end = static_cast<End*>(data);
  end->bridge->Detach();
  end->session->CloseNow(kExitPatience);
}

LibvmiObject& LibvmiObject::Receiver(const Napi::CallbackInfo& info) {
  return *ToObject<LibvmiObject>(info.This(), "this");
}

LibvmiObject::Pending LibvmiObject::Expect(Napi::Env env) {
  const uint64_t ticket = ++last_ticket_;
  Pending pending{ticket, Napi::Promise::Deferred::New(env), Napi::Object::New(env)};
  pending.object.Set("ticket", static_cast<double>(ticket));
  pending.object.Set("done", pending.deferred.Promise());
  bridge_->Expect(env, ticket);
  return pending;
}

// `make` gives the promise's value when all went well; on the environment's thread.
Session::Finish LibvmiObject::Finisher(
    const Pending& pending, std::function<Napi::Value(Napi::Env, const std::string&)> make) {
  return [bridge = bridge_, ticket = pending.ticket, deferred = pending.deferred,
          make = std::move(make)](Status status, std::string log) {
    // A std::function copies, a Status does not.
    const auto shared = std::make_shared<Status>(std::move(status));
    bridge->Deliver(
        ticket, deferred,
        [shared, make, log = std::move(log)](Napi::Env env, Napi::Value* rejection) -> Napi::Value {
          if (shared->ok()) return make(env, log);
          const Napi::Error error = ToException(env, shared->error());
          error.Value().Set("log", log);
          *rejection = error.Value();
          return env.Undefined();
        });
  };
}

Napi::Value LibvmiObject::Path(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), Receiver(info).session_->facts().path);
}

Napi::Value LibvmiObject::Version(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), Receiver(info).session_->facts().version);
}

Napi::Value LibvmiObject::Nested(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Receiver(info).session_->facts().nested);
}

Napi::Value LibvmiObject::Has(const Napi::CallbackInfo& info) {
  const libvmi::Facts& facts = Receiver(info).session_->facts();
  const std::string name = ToText(info[0], "name");
  return Napi::Boolean::New(info.Env(), libvmi::IsListed(name) && facts.Has(name));
}

Napi::Value LibvmiObject::Attach(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Duration deadline = ToDeadline(info[0]);
  const Pending pending = Expect(env);
  const auto make = [](Napi::Env env, const std::string& log) -> Napi::Value {
    return Napi::String::New(env, log);
  };
  bridge_->Assign(pending.ticket, session_->Attach(Finisher(pending, make), deadline));
  return pending.object;
}

std::shared_ptr<LibvmiObject::Invocation> LibvmiObject::ReadCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto invocation = std::make_shared<Invocation>();
  const std::string name = ToText(info[0], "name");
  invocation->session = session_;
  invocation->call = libvmi::FindCall(name);
  if (invocation->call == nullptr || !session_->facts().Has(name)) {
    Check(env, Status(Code::kUnsupported, session_->facts().path + " has no " + name));
  }
  const std::vector<libvmi::Parameter>& parameters = invocation->call->parameters;
  if (!info[1].IsArray()) ThrowType(env, "arguments as an Array", info[1]);
  const auto array = info[1].As<Napi::Array>();
  if (array.Length() != parameters.size()) {
    ThrowRange(env, name + " with " + std::to_string(parameters.size()) + " arguments",
               std::to_string(array.Length()));
  }
  for (uint32_t i = 0; i < parameters.size(); ++i) {
    invocation->arguments.push_back(
        ToArgument(array.Get(i), parameters[i], name + "'s argument " + std::to_string(i)));
  }
  return invocation;
}

Napi::Value LibvmiObject::Call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const std::shared_ptr<Invocation> invocation = ReadCall(info);
  const Duration deadline = ToDeadline(info[2]);
  if (!info[3].IsBoolean()) ThrowType(env, "fresh as a boolean", info[3]);
  invocation->fresh = info[3].As<Napi::Boolean>().Value();
  const Pending pending = Expect(env);
  const auto make = [invocation](Napi::Env env, const std::string& log) {
    return ToJs(env, invocation->outcome, log);
  };
  bridge_->Assign(pending.ticket,
                  session_->Post(
                      invocation->call->name,
                      [invocation](libvmi::Engine& engine) { return invocation->Run(engine); },
                      Finisher(pending, make), deadline));
  return pending.object;
}

Napi::Value LibvmiObject::CallNow(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const std::shared_ptr<Invocation> invocation = ReadCall(info);
  std::string log;
  Status status;
  const auto direct = [&](libvmi::Engine& engine) {
    Status result = invocation->Run(engine);
    log = engine.TakeLog();
    return result;
  };
  if (!session_->TryDirect(direct, &status)) {
    const auto work = [invocation](libvmi::Engine& engine) { return invocation->Run(engine); };
    status = session_->Run(invocation->call->name, work, &log);
  }
  Check(env, status);
  return ToJs(env, invocation->outcome, log);
}

Napi::Value LibvmiObject::InitOs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  libvmi::Config config = ToConfig(info[0], info[1]);
  const Duration deadline = ToDeadline(info[2]);
  const Pending pending = Expect(env);
  const auto os = std::make_shared<libvmi::Os>(0);
  const auto make = [os](Napi::Env env, const std::string&) -> Napi::Value {
    return Napi::Number::New(env, *os);
  };
  bridge_->Assign(pending.ticket, session_->Post(
                                      "vmi_init_os",
                                      [os, config = std::move(config)](libvmi::Engine& engine) {
                                        return engine.InitOs(config, os.get());
                                      },
                                      Finisher(pending, make), deadline));
  return pending.object;
}

Napi::Value LibvmiObject::Listen(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const auto capacity = static_cast<size_t>(ToInteger(info[0], "queue", 1, kLargestQueue));
  const Duration deadline = ToDeadline(info[1]);
  const Pending pending = Expect(env);
  const auto make = [](Napi::Env env, const std::string&) { return env.Undefined(); };
  bridge_->Assign(pending.ticket,
                  session_->StartListening(capacity, Finisher(pending, make), deadline));
  return pending.object;
}

Napi::Value LibvmiObject::TakeWrites(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Pending pending = Expect(env);
  const auto taken = std::make_shared<libvmi::Cr3Writes>();
  const Session::Finish finish =
      Finisher(pending, [taken](Napi::Env env, const std::string&) -> Napi::Value {
        std::vector<uint64_t> words;
        for (const libvmi::Cr3Write& write : taken->writes) {
          words.insert(words.end(), {write.vcpu, write.value, write.previous});
        }
        Napi::Object result = Napi::Object::New(env);
        result.Set("writes", FromWords(env, words.data(), words.size()));
        result.Set("dropped", static_cast<double>(taken->dropped));
        return result;
      });
  bridge_->Assign(pending.ticket, Session::kTakeTicket);
  session_->Take([taken, finish](Status status, libvmi::Cr3Writes writes) {
    *taken = std::move(writes);
    finish(std::move(status), {});
  });
  return pending.object;
}

Napi::Value LibvmiObject::Unlisten(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Duration deadline = ToDeadline(info[0]);
  const Pending pending = Expect(env);
  const auto make = [](Napi::Env env, const std::string&) { return env.Undefined(); };
  bridge_->Assign(pending.ticket, session_->StopListening(Finisher(pending, make), deadline));
  return pending.object;
}

Session::Ticket LibvmiObject::Find(const Napi::Value& ticket) {
  return bridge_->Find(static_cast<uint64_t>(ToInteger(ticket, "ticket", 1, kLargestExact)));
}

Napi::Value LibvmiObject::Withdraw(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Session::Ticket ticket = Find(info[0]);
  bridge_->Forget(env, static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
  return Napi::Boolean::New(
      env, ticket != 0 && session_->Withdraw(ticket) == Session::Withdrawn::kNotStarted);
}

Napi::Value LibvmiObject::GiveUp(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Status status = session_->Poison(Find(info[0]));
  if (status.ok()) return env.Undefined();
  bridge_->Forget(env, static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
  return Napi::String::New(env, status.error().message);
}

Napi::Value LibvmiObject::OpenMemory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Elements<uint64_t> triples = ToWords(info[0], "segments");
  if (triples.length % 3 != 0)
    ThrowRange(env, "segments in triples", std::to_string(triples.length) + " words");
  std::vector<libvmi::Segment> segments;
  for (size_t i = 0; i < triples.length; i += 3) {
    segments.push_back({triples.data[i], triples.data[i + 1], triples.data[i + 2]});
  }
  Check(env, session_->State());
  return NewMemory(env, std::make_shared<Memory>(
                            Check(env, libvmi::Source::Create(session_, std::move(segments)))));
}

Napi::Value LibvmiObject::Close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Receiver(info);
  const Pending pending = Expect(env);
  const Session::Finish finish =
      Finisher(pending, [](Napi::Env env, const std::string&) { return env.Undefined(); });
  bridge_->Assign(pending.ticket, session_->Close([finish] { finish({}, {}); }));
  return pending.object;
}

}  // namespace vmi
