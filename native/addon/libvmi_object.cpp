#include "addon/libvmi_object.h"

#include <functional>
#include <utility>

#include "source/libvmi/library.h"
#include "source/libvmi/local.h"
#include "source/libvmi/program.h"
#include "source/libvmi/remote.h"
#include "source/libvmi/source.h"
#include "addon/arguments.h"
#include "addon/libvmi_report.h"
#include "addon/libvmi_values.h"
#include "addon/memory_object.h"
#include "addon/promise_bridge.h"

namespace vmi {

using libvmi::Duration;
using libvmi::Library;
using libvmi::Session;

struct LibvmiObject::End {
  // What has to happen when the environment ends before the object does.
  std::shared_ptr<Session> session;
  std::shared_ptr<PromiseBridge> bridge;
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

// How long the end of an environment waits for libvmi to resume and let go of the guest.
constexpr Duration kExitPatience{2000};
constexpr int64_t kLargestQueue = 1 << 20;

// libvmi in this process or in one of its own.
Result<std::unique_ptr<libvmi::Engine>> OpenEngine(bool isolate, const std::string& path,
                                                   libvmi::Domain domain, Duration deadline) {
  if (isolate) return libvmi::RemoteEngine::Start(path, std::move(domain), deadline);
  Result<std::shared_ptr<const Library>> library = Library::OpenUsable(path);
  if (!library.ok()) return library.TakeError();
  return std::unique_ptr<libvmi::Engine>(
      new libvmi::LocalEngine(std::move(library.value()), std::move(domain), deadline));
}

Napi::Value HostProgram(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), libvmi::HostProgram());
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
                      InstanceMethod<&LibvmiObject::DroppedWrites>("droppedWrites"),
                      InstanceMethod<&LibvmiObject::Unlisten>("unlisten"),
                      InstanceMethod<&LibvmiObject::Withdraw>("withdraw"),
                      InstanceMethod<&LibvmiObject::GiveUp>("giveUp"),
                      InstanceMethod<&LibvmiObject::OpenMemory>("memory"),
                      InstanceMethod<&LibvmiObject::Close>("close"),
                  });
  exports.Set(kName, constructor);
  exports.Set("libvmiReport", Napi::Function::New<LibvmiReport>(env, "libvmiReport"));
  exports.Set("libvmiHost", Napi::Function::New<HostProgram>(env, "libvmiHost"));
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
  std::shared_ptr<PromiseBridge> bridge = PromiseBridge::New(env);
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
    return FromOutcome(env, invocation->outcome, log);
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
  return FromOutcome(env, invocation->outcome, log);
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

Napi::Value LibvmiObject::DroppedWrites(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return Napi::Number::New(env, static_cast<double>(Receiver(info).session_->dropped()));
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
  return bridge_->Find(static_cast<uint64_t>(ToTicket(ticket)));
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
