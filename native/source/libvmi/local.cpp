#include "source/libvmi/local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "source/libvmi/kvm.h"
#include "source/libvmi/xen.h"

namespace libvmi {
namespace {

constexpr size_t kMaxFileName = 499;
constexpr uint64_t kInitDomainName = 1;
constexpr uint64_t kInitDomainId = 2;
constexpr uint64_t kInitEvents = 4;

const char* ModeName(Mode mode) {
  switch (mode) {
    case Mode::kXen:
      return "xen";
    case Mode::kKvm:
      return "kvm";
    case Mode::kFile:
      break;
  }
  return "file";
}

// vmi_init_error_t since 0.14; the only values vmi_init() sets are the same before.
std::string InitErrorText(InitError error, const Domain& domain) {
  switch (error) {
    case 0:
      return std::string("this libvmi was built without its ") + ModeName(domain.mode) + " driver";
    case 1:
      return "libvmi found no hypervisor here";
    case 2:
      return domain.mode == Mode::kFile
                 ? "libvmi could not open the file"
                 : std::string("libvmi's ") + ModeName(domain.mode) +
                       " driver could not start (is this the hypervisor's host, and is it root?)";
    case 3:
      return "libvmi found no such virtual machine";
    case 6:
      return "libvmi could not set up events";
    default:
      return "libvmi's error " + std::to_string(error);
  }
}

// libvmi frees its file driver twice when it cannot open the file, and cuts names at 500 bytes:
// neither may reach it. Empty when it may try.
std::string FileProblem(const std::string& path) {
  if (path.size() > kMaxFileName)
    return "its path has more than " + std::to_string(kMaxFileName) + " bytes";
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return strerror(errno);
  struct stat status = {};
  const int result = fstat(fd, &status);
  close(fd);
  if (result != 0) return strerror(errno);
  if (!S_ISREG(status.st_mode)) return "it is no regular file";
  if (status.st_size == 0) return "it is empty";
  return {};
}

// Xen has one ring a domain, and a ring that a listener left behind stays until it is taken down.
vmi::Status EventsTaken(uint32_t domain) {
  return {vmi::Code::kEventsTaken,
          "the events of domain " + std::to_string(domain) +
              " are taken: another program listens to them, or one that ended has left them on; "
              "'vmi doctor' tells which, 'vmi doctor --fix' turns off what was left on"};
}

vmi::Status NotAttached() { return {vmi::Code::kAttach, "this libvmi instance is not attached"}; }

}  // namespace

std::string Domain::Title() const {
  return std::string(mode == Mode::kFile ? "libvmi" : ModeName(mode)) + ":" +
         (by_id && name.empty() ? std::to_string(id) : name);
}

LocalEngine::LocalEngine(std::shared_ptr<const Library> library, Domain domain, Duration patience)
    : library_(std::move(library)),
      facts_(library_->facts()),
      domain_(std::move(domain)),
      patience_(patience),
      events_(*library_) {}

vmi::Status LocalEngine::Attach() {
  if (domain_.mode == Mode::kFile) {
    const std::string problem = domain_.by_id ? "a file has no id" : FileProblem(domain_.name);
    if (!problem.empty())
      return {vmi::Code::kAttach, "cannot read " + domain_.name + ": " + problem};
  }
  const void* domain = domain_.by_id ? static_cast<const void*>(&domain_.id) : domain_.name.c_str();
  const uint64_t flags =
      (domain_.by_id ? kInitDomainId : kInitDomainName) | (domain_.events ? kInitEvents : 0);
  Instance instance = nullptr;
  InitError error = 0;
  const Calls& calls = library_->calls();
  std::optional<XenControl> xen;
  if (domain_.mode == Mode::kXen && calls.vmi_get_vmid != nullptr) xen.emplace();
  const std::vector<XenLimit> before = xen ? xen->Limits() : std::vector<XenLimit>();
  const Status status = calls.vmi_init(&instance, domain_.mode, domain, flags, nullptr, &error);
  if (status != Status::kSuccess || instance == nullptr) {
    if (xen && domain_.events && domain_.by_id && xen->MonitorIsOn(domain_.id).value_or(false))
      return EventsTaken(static_cast<uint32_t>(domain_.id));
    return {vmi::Code::kAttach, InitErrorText(error, domain_)};
  }
  instance_ = instance;
  if (!xen) return {};
  xen_domain_ = static_cast<uint32_t>(calls.vmi_get_vmid(instance));
  for (const XenLimit& limit : before) {
    if (limit.domain != *xen_domain_) continue;
    limited_ = true;
    xen->SetLimit(limit);
  }
  return {};
}

vmi::Status LocalEngine::Invoke(const Call& call, const std::vector<Value>& arguments, bool fresh,
                                Outcome* outcome) {
  if (instance_ == nullptr) {
    outcome->failed = true;
    return {};
  }
  const Calls& calls = library_->calls();
  const std::string refusal = Refusal(domain_.mode, *library_, call.name);
  if (!refusal.empty()) return {vmi::Code::kUnsupported, refusal};
  if (fresh) {
    calls.vmi_pagecache_flush(instance_);
    calls.vmi_v2pcache_flush(instance_, ~uint64_t{0});
    calls.vmi_pidcache_flush(instance_);
  }
  if (AsksRegister(call.name) && !Answers(domain_.mode, calls, instance_)) {
    outcome->failed = true;
    return {};
  }
  if (!call.invoke(*library_, instance_, arguments, outcome)) {
    outcome->failed = true;
  } else if (!outcome->failed && strcmp(call.name, "vmi_pause_vm") == 0) {
    paused_ = true;
  } else if (!outcome->failed && strcmp(call.name, "vmi_resume_vm") == 0) {
    paused_ = false;
  }
  return {};
}

vmi::Status LocalEngine::InitOs(const Config& config, Os* os) {
  if (instance_ == nullptr) return NotAttached();
  if (!Answers(domain_.mode, library_->calls(), instance_)) {
    return {vmi::Code::kUnsupported, "the guest does not answer any more: it has ended"};
  }
  vmi::Result<Os> result = libvmi::InitOs(*library_, instance_, config, patience_);
  if (!result.ok()) return result.TakeError();
  *os = result.value();
  return {};
}

vmi::Status LocalEngine::Read(Piece* pieces, size_t count, bool stale) {
  if (instance_ == nullptr) return NotAttached();
  const Calls& calls = library_->calls();
  if (stale) calls.vmi_pagecache_flush(instance_);
  for (size_t i = 0; i < count; ++i) {
    Piece& piece = pieces[i];
    size_t transferred = 0;
    (void)calls.vmi_read_pa(instance_, piece.address, piece.length, piece.into, &transferred);
    // libvmi reports success for a short read too; a report of more than was asked for proves
    // nothing.
    piece.transferred = transferred > piece.length ? 0 : transferred;
  }
  return {};
}

vmi::Status LocalEngine::FlushCaches() {
  if (instance_ == nullptr) return {};
  const Calls& calls = library_->calls();
  calls.vmi_pagecache_flush(instance_);
  // Any single table's address would flush nothing.
  calls.vmi_v2pcache_flush(instance_, ~uint64_t{0});
  calls.vmi_pidcache_flush(instance_);
  calls.vmi_symcache_flush(instance_);
  if (!Answers(domain_.mode, calls, instance_)) {
    return {vmi::Code::kClosed, "libvirt's guest does not answer any more: it has ended"};
  }
  return {};
}

vmi::Status LocalEngine::StartCr3Writes(size_t capacity) {
  return instance_ == nullptr ? NotAttached() : events_.Start(instance_, capacity);
}

vmi::Status LocalEngine::ListenTurn(Duration timeout) {
  return instance_ == nullptr ? NotAttached() : events_.Listen(instance_, timeout);
}

vmi::Status LocalEngine::Listen(Duration timeout, Cr3Writes* writes) {
  vmi::Status status = ListenTurn(timeout);
  *writes = events_.queue().Take(Duration::zero());
  return status;
}

vmi::Status LocalEngine::StopCr3Writes() {
  return instance_ == nullptr ? vmi::Status() : events_.Stop(instance_, !xen_domain_);
}

void LocalEngine::Abandon() {
  events_.Abandon();
  instance_ = nullptr;
}

void LocalEngine::End() {
  const Instance instance = std::exchange(instance_, nullptr);
  if (instance == nullptr) return;
  (void)events_.Stop(instance, !xen_domain_);
  if (paused_) library_->calls().vmi_resume_vm(instance);
  std::optional<XenControl> xen;
  if (limited_) xen.emplace();
  const std::optional<XenLimit> limit = xen ? xen->LimitOf(*xen_domain_) : std::nullopt;
  library_->calls().vmi_destroy(instance);
  if (limit) xen->SetLimit(*limit);
}

}  // namespace libvmi
