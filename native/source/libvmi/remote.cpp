#include "source/libvmi/remote.h"

#include <string.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "source/libvmi/program.h"

namespace libvmi {

using wire::Op;
using wire::Reader;
using wire::Slot;
using wire::Writer;

namespace {

// vmi_init() asks libvirt or xenstore.
constexpr Duration kAttachDeadline{30'000};
constexpr Duration kEndPatience{2'000};
constexpr Duration kCorpsePatience{500};
// The guard of a process acts within a fifth of a second after its end.
constexpr Duration kGuardPatience{2'000};
constexpr Duration kReleasePatience{3'000};

std::string InvokeRequest(const Call& call, const std::vector<Value>& arguments, bool fresh) {
  Writer request;
  request.Put(Op::kInvoke).Put(std::string(call.name)).Put(static_cast<uint8_t>(fresh));
  request.Put(static_cast<uint32_t>(arguments.size()));
  for (const Value& argument : arguments) request.Put(argument);
  return request.bytes();
}

std::string InitOsRequest(const Config& config) {
  Writer request;
  request.Put(Op::kInitOs)
      .Put(config.mode)
      .Put(config.text)
      .Put(static_cast<uint32_t>(config.entries.size()));
  for (const ConfigEntry& entry : config.entries) {
    request.Put(entry.key)
        .Put(static_cast<uint8_t>(entry.is_number))
        .Put(entry.number)
        .Put(entry.text);
  }
  return request.bytes();
}

}  // namespace

RemoteEngine::RemoteEngine(std::string path, Domain domain, Duration deadline)
    : path_(std::move(path)), domain_(std::move(domain)), deadline_(deadline) {}

RemoteEngine::~RemoteEngine() = default;

vmi::Result<std::unique_ptr<Engine>> RemoteEngine::Start(const std::string& path, Domain domain,
                                                         Duration deadline) {
  std::unique_ptr<RemoteEngine> engine(new RemoteEngine(path, std::move(domain), deadline));
  engine->deadline_ = kAttachDeadline;
  vmi::Status status = engine->Launch();
  if (!status.ok()) return status;
  engine->deadline_ = deadline;
  return std::unique_ptr<Engine>(std::move(engine));
}

vmi::Status RemoteEngine::Launch() {
  vmi::Result<std::unique_ptr<HostProcess>> started = HostProcess::Start(domain_.Title());
  if (!started.ok()) return started.TakeError();
  process_ = std::move(started.value());
  Writer request;
  request.Put(Op::kHello)
      .Put(path_)
      .Put(domain_.mode)
      .Put(domain_.name)
      .Put(static_cast<uint8_t>(domain_.by_id));
  request.Put(domain_.id)
      .Put(static_cast<uint8_t>(domain_.events))
      .Put(static_cast<int64_t>(deadline_.count()));
  std::string answer;
  vmi::Status status = Ask("dlopen", request.bytes(), &answer);
  if (!status.ok()) return status;
  Reader reader(answer);
  status = reader.TakeStatus();
  if (!status.ok()) {
    process_.reset();
    return status;
  }
  facts_.path = reader.Take<std::string>();
  facts_.version = reader.Take<std::string>();
  facts_.nested = reader.Take<bool>();
  facts_.missing.clear();
  for (size_t left = reader.TakeCount(); left > 0; --left)
    facts_.missing.push_back(reader.Take<std::string>());
  return reader.ok() ? vmi::Status() : Gone("dlopen", false);
}

vmi::Status RemoteEngine::Ready() {
  if (process_ != nullptr) return {};
  const Duration deadline = std::exchange(deadline_, kAttachDeadline);
  vmi::Status status = Launch();
  if (status.ok() && attached_)
    status = Ask("vmi_init", Writer().Put(Op::kAttach).Put(static_cast<uint8_t>(paused_)).bytes());
  for (size_t i = 0; i < setup_.size() && status.ok() && attached_; ++i) {
    std::string answer;
    status = Ask(setup_[i].first, setup_[i].second, &answer);
    if (status.ok()) status = Reader(answer).TakeStatus();
  }
  deadline_ = deadline;
  // One that is not what the last one was is of no use.
  if (!status.ok()) process_.reset();
  return status;
}

vmi::Status RemoteEngine::Ask(const char* name, const std::string& request, std::string* answer) {
  const auto until = std::chrono::steady_clock::now() + deadline_;
  HostProcess::Io io = process_->Send(request, until);
  if (io == HostProcess::Io::kDone) io = process_->Receive(answer, until);
  return io == HostProcess::Io::kDone ? vmi::Status() : Gone(name, io == HostProcess::Io::kLate);
}

vmi::Status RemoteEngine::Ask(const char* name, const std::string& request) {
  std::string answer;
  vmi::Status status = Ask(name, request, &answer);
  if (!status.ok()) return status;
  Reader reader(answer);
  status = reader.TakeStatus();
  return reader.ok() ? std::move(status) : Gone(name, false);
}

vmi::Status RemoteEngine::Gone(const char* name, bool late) {
  const HostProcess::End end = process_->Finish(late ? Duration::zero() : kCorpsePatience);
  vmi::Error error;
  error.output = output_ + process_->TakeOutput();
  output_.clear();
  const std::string guest = LetGuestGo();
  process_.reset();
  listening_ = false;
  if (late) {
    error.code = vmi::Code::kBusy;
    error.message = std::string(name) + " of libvmi has not returned in " +
                    std::to_string(deadline_.count()) +
                    " ms; its process was ended, the next operation starts a new one" + guest;
  } else {
    error.code = vmi::Code::kCrashed;
    error.signal = end.signal;
    error.exit_status = end.exit_status;
    error.message =
        "the process of libvmi was ended by " +
        (end.signal.empty() ? "exit status " + std::to_string(end.exit_status) : end.signal) +
        " in " + name + "; the next operation starts a new one" + guest;
  }
  return error;
}

std::string RemoteEngine::LetGuestGo() {
  const Lease& lease = process_->lease();
  const uint32_t domain = lease.domain.load();
  const auto until = std::chrono::steady_clock::now() + kGuardPatience;
  while (lease.open() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(Duration(10));
  if (lease.open() && !ReleaseDomain(domain, kReleasePatience)) {
    return "; the events of domain " + std::to_string(domain) +
           " could not be turned off, and it may stand still: 'vmi doctor --fix' does it";
  }
  const uint32_t reason = lease.reason.load();
  if (reason != Lease::kHostStopped && reason != Lease::kHostSilent) return {};
  return std::string("; the guest was let go before: ") + ReasonText(reason);
}

std::string RemoteEngine::TakeLog() {
  std::string output = std::move(output_);
  output_.clear();
  if (process_ != nullptr) output += process_->TakeOutput();
  return output;
}

vmi::Status RemoteEngine::Attach() {
  vmi::Status status = Ready();
  if (!status.ok()) return status;
  status = Ask("vmi_init", Writer().Put(Op::kAttach).Put(uint8_t{0}).bytes());
  attached_ = status.ok();
  return status;
}

vmi::Status RemoteEngine::Invoke(const Call& call, const std::vector<Value>& arguments, bool fresh,
                                 Outcome* outcome) {
  vmi::Status status = Ready();
  if (!status.ok()) return status;
  const std::string request = InvokeRequest(call, arguments, fresh);
  std::string answer;
  status = Ask(call.name, request, &answer);
  if (!status.ok()) return status;
  Reader reader(answer);
  status = reader.TakeStatus();
  outcome->failed = reader.Take<bool>();
  outcome->values.clear();
  for (size_t left = reader.TakeCount(); left > 0; --left)
    outcome->values.push_back(reader.TakeValue());
  if (!reader.ok()) return Gone(call.name, false);
  if (!status.ok() || outcome->failed) return status;
  const std::string name = call.name;
  if (name == "vmi_pause_vm") paused_ = true;
  if (name == "vmi_resume_vm") paused_ = false;
  // Whether libvmi knows the guest's paging now only its answer to other calls tells; asking again
  // does no harm.
  if (name == "vmi_init_paging") setup_ = {{call.name, request}};
  return {};
}

vmi::Status RemoteEngine::InitOs(const Config& config, Os* os) {
  vmi::Status status = Ready();
  if (!status.ok()) return status;
  const std::string request = InitOsRequest(config);
  std::string answer;
  status = Ask("vmi_init_os", request, &answer);
  if (!status.ok()) return status;
  Reader reader(answer);
  status = reader.TakeStatus();
  *os = reader.Take<Os>();
  if (!reader.ok()) return Gone("vmi_init_os", false);
  if (status.ok()) setup_.emplace_back("vmi_init_os", request);
  return status;
}

vmi::Status RemoteEngine::Read(Piece* pieces, size_t count, bool stale) {
  if (count == 1 && pieces->length <= wire::kSharedBytes) return ReadSlots(pieces, 1, stale);
  for (size_t i = 0; i < count; ++i) pieces[i].transferred = 0;
  // Parts of pieces, as many as fit.
  Piece parts[wire::kSlots];
  size_t owner[wire::kSlots];
  size_t next = 0;
  size_t offset = 0;  // in pieces[next]
  while (next < count) {
    size_t filled = 0;
    size_t bytes = 0;
    while (next < count && filled < wire::kSlots && bytes < wire::kSharedBytes) {
      const size_t length = std::min(pieces[next].length - offset, wire::kSharedBytes - bytes);
      parts[filled] = {pieces[next].address + offset, pieces[next].into + offset, length, 0};
      owner[filled++] = next;
      bytes += length;
      offset += length;
      if (offset < pieces[next].length) break;
      ++next;
      offset = 0;
    }
    vmi::Status status = ReadSlots(parts, filled, stale);
    if (!status.ok()) return status;
    stale = false;
    for (size_t i = 0; i < filled; ++i) {
      pieces[owner[i]].transferred += parts[i].transferred;
      // The rest of a piece that ended early is not asked for.
      if (parts[i].transferred < parts[i].length && owner[i] == next && offset > 0) {
        ++next;
        offset = 0;
      }
    }
  }
  return {};
}

vmi::Status RemoteEngine::ReadSlots(Piece* pieces, size_t count, bool stale) {
  vmi::Status status = Ready();
  if (!status.ok()) return status;
  uint8_t* shared = process_->shared();
  for (size_t i = 0; i < count; ++i) {
    const Slot slot = {pieces[i].address, static_cast<uint32_t>(pieces[i].length), 0};
    memcpy(shared + i * sizeof slot, &slot, sizeof slot);
  }
  status = Ask("vmi_read_pa", Writer()
                                  .Put(Op::kRead)
                                  .Put(static_cast<uint8_t>(stale))
                                  .Put(static_cast<uint32_t>(count))
                                  .bytes());
  if (!status.ok()) return status;
  const uint8_t* bytes = shared + wire::kSlots * sizeof(Slot);
  for (size_t i = 0; i < count; ++i) {
    // Copied before it is looked at: the other side can write there at any time.
    uint32_t transferred;
    memcpy(&transferred, shared + i * sizeof(Slot) + offsetof(Slot, transferred),
           sizeof transferred);
    pieces[i].transferred = transferred > pieces[i].length ? 0 : transferred;
    memcpy(pieces[i].into, bytes, pieces[i].transferred);
    bytes += pieces[i].length;
  }
  return {};
}

vmi::Status RemoteEngine::FlushCaches() {
  vmi::Status status = Ready();
  if (!status.ok()) return status;
  return Ask("vmi_*cache_flush", Writer().Put(Op::kFlush).bytes());
}

vmi::Status RemoteEngine::StartCr3Writes(size_t capacity) {
  vmi::Status status = Ready();
  if (!status.ok()) return status;
  status = Ask("vmi_register_event",
               Writer().Put(Op::kStartCr3Writes).Put(static_cast<uint64_t>(capacity)).bytes());
  listening_ = status.ok();
  return status;
}

vmi::Status RemoteEngine::Listen(Duration timeout, Cr3Writes* writes) {
  if (process_ == nullptr || !listening_)
    return {vmi::Code::kUnsupported, "no writes to CR3 are listened for"};
  std::string answer;
  vmi::Status status =
      Ask("vmi_events_listen",
          Writer().Put(Op::kListen).Put(static_cast<int64_t>(timeout.count())).bytes(), &answer);
  if (!status.ok()) return status;
  Reader reader(answer);
  status = reader.TakeStatus();
  writes->dropped = reader.Take<uint64_t>();
  for (size_t left = reader.TakeCount(); left > 0; --left) {
    Cr3Write write;
    write.value = reader.Take<uint64_t>();
    write.previous = reader.Take<uint64_t>();
    write.vcpu = reader.Take<uint32_t>();
    writes->writes.push_back(write);
  }
  return reader.ok() ? std::move(status) : Gone("vmi_events_listen", false);
}

vmi::Status RemoteEngine::StopCr3Writes() {
  if (process_ == nullptr || !listening_) return {};
  listening_ = false;
  return Ask("vmi_clear_event", Writer().Put(Op::kStopCr3Writes).bytes());
}

void RemoteEngine::End() {
  // Once more for a guest that was paused here: nobody else knows of it.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (process_ == nullptr && !(attached_ && paused_ && Ready().ok())) break;
    if (Ask("vmi_destroy", Writer().Put(Op::kEnd).bytes()).ok()) break;
  }
  attached_ = false;
  if (process_ == nullptr) return;
  output_ += process_->TakeOutput();
  (void)process_->Finish(kEndPatience);
  process_.reset();
}

}  // namespace libvmi
