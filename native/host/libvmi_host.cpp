// The process that runs libvmi for an isolated instance. Started by HostProcess, which see; it does
// what it is asked, one request at a time, and ends when its socket is closed or it is told to end,
// in both cases not without letting the guest go. What else it can be is in guard.h.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "host/engine_lock.h"
#include "host/guard.h"
#include "host/listener.h"
#include "source/libvmi/local.h"
#include "source/libvmi/wire.h"

namespace {

using namespace libvmi;
using wire::Op;
using wire::Reader;
using wire::Slot;
using wire::Writer;

// How long a call that is inside libvmi may go on when nobody waits for it any more.
constexpr Duration kGrace{2000};

bool ReceiveAll(char* into, size_t length) {
  while (length > 0) {
    const ssize_t got = recv(wire::kSocket, into, length, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    into += got;
    length -= static_cast<size_t>(got);
  }
  return true;
}

bool Receive(std::string* frame) {
  uint32_t length = 0;
  if (!ReceiveAll(reinterpret_cast<char*>(&length), sizeof length) || length > wire::kMaxFrame)
    return false;
  frame->resize(length);
  return ReceiveAll(frame->data(), length);
}

bool SendAll(const char* from, size_t length) {
  while (length > 0) {
    const ssize_t sent = send(wire::kSocket, from, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    from += sent;
    length -= static_cast<size_t>(sent);
  }
  return true;
}

bool Send(const std::string& bytes) {
  const auto length = static_cast<uint32_t>(bytes.size());
  if (bytes.size() > 4096) {
    return SendAll(reinterpret_cast<const char*>(&length), sizeof length) &&
           SendAll(bytes.data(), bytes.size());
  }
  std::string frame(reinterpret_cast<const char*>(&length), sizeof length);
  frame += bytes;
  return SendAll(frame.data(), frame.size());
}

class Host {
 public:
  explicit Host(uint8_t* shared) : shared_(shared) {}

  // Ends what must end with this process, from any thread.
  void EndNow() {
    host::Listener* listener = listener_now_.load();
    if (listener != nullptr) listener->EndNow(kGrace);
  }

  // The answer, or an empty one for what is no request.
  std::string Answer(const std::string& frame, bool* last) {
    Reader request(frame);
    const Op op = request.Take<Op>();
    if (op == Op::kHello) return Hello(&request);
    if (engine_ == nullptr) return {};
    Writer answer;
    switch (op) {
      case Op::kStartCr3Writes:
        answer.Put(listener_->Start(request.Take<uint64_t>()));
        return answer.bytes();
      case Op::kListen:
        return Listen(&request);
      case Op::kStopCr3Writes:
        answer.Put(listener_->Stop());
        return answer.bytes();
      case Op::kEnd:
        End();
        answer.Put(vmi::Status());
        *last = true;
        return answer.bytes();
      default:
        break;
    }
    const std::lock_guard<host::EngineLock> hold(lock_);
    switch (op) {
      case Op::kAttach:
        if (request.Take<bool>()) engine_->NotePaused();
        answer.Put(engine_->Attach());
        break;
      case Op::kInvoke:
        return Invoke(&request);
      case Op::kInitOs:
        return InitOs(&request);
      case Op::kRead:
        return Read(&request);
      case Op::kFlush:
        answer.Put(engine_->FlushCaches());
        break;
      default:
        break;
    }
    return answer.bytes();
  }

  void End() {
    if (listener_ != nullptr) listener_->End();
  }

 private:
  std::string Hello(Reader* request) {
    const auto path = request->Take<std::string>();
    Domain domain;
    domain.mode = request->Take<Mode>();
    domain.name = request->Take<std::string>();
    domain.by_id = request->Take<bool>();
    domain.id = request->Take<uint64_t>();
    domain.events = request->Take<bool>();
    const Duration patience(request->Take<int64_t>());
    if (!request->ok()) return {};
    vmi::Result<std::shared_ptr<const Library>> library = Library::OpenUsable(path);
    Writer answer;
    if (!library.ok()) {
      answer.Put(vmi::Status(library.TakeError()));
      return answer.bytes();
    }
    engine_ = std::make_unique<LocalEngine>(library.value(), std::move(domain), patience);
    listener_ = std::make_unique<host::Listener>(engine_.get(), &lock_, wire::LeaseIn(shared_));
    listener_now_ = listener_.get();
    const Facts& facts = engine_->facts();
    answer.Put(vmi::Status())
        .Put(facts.path)
        .Put(facts.version)
        .Put(static_cast<uint8_t>(facts.nested));
    answer.Put(static_cast<uint32_t>(facts.missing.size()));
    for (const std::string& symbol : facts.missing) answer.Put(symbol);
    return answer.bytes();
  }

  std::string Invoke(Reader* request) {
    const Call* call = FindCall(request->Take<std::string>());
    const bool fresh = request->Take<bool>();
    std::vector<Value> arguments;
    for (size_t left = request->TakeCount(); left > 0; --left)
      arguments.push_back(request->TakeValue());
    if (!request->ok() || call == nullptr || arguments.size() != call->parameters.size()) return {};
    Outcome outcome;
    Writer answer;
    answer.Put(engine_->Invoke(*call, arguments, fresh, &outcome))
        .Put(static_cast<uint8_t>(outcome.failed));
    answer.Put(static_cast<uint32_t>(outcome.values.size()));
    for (const Value& value : outcome.values) answer.Put(value);
    return answer.bytes();
  }

  std::string InitOs(Reader* request) {
    Config config;
    config.mode = request->Take<ConfigMode>();
    config.text = request->Take<std::string>();
    for (size_t left = request->TakeCount(); left > 0; --left) {
      ConfigEntry entry;
      entry.key = request->Take<std::string>();
      entry.is_number = request->Take<bool>();
      entry.number = request->Take<uint64_t>();
      entry.text = request->Take<std::string>();
      config.entries.push_back(std::move(entry));
    }
    if (!request->ok()) return {};
    Os os = 0;
    Writer answer;
    answer.Put(engine_->InitOs(config, &os)).Put(os);
    return answer.bytes();
  }

  std::string Read(Reader* request) {
    const bool stale = request->Take<bool>();
    const auto count = request->Take<uint32_t>();
    if (!request->ok() || count > wire::kSlots) return {};
    auto* slots = reinterpret_cast<Slot*>(shared_);
    uint8_t* bytes = shared_ + wire::kSlots * sizeof(Slot);
    size_t left = wire::kSharedBytes;
    pieces_.clear();
    for (uint32_t i = 0; i < count; ++i) {
      if (slots[i].length > left) return {};
      pieces_.push_back({slots[i].address, bytes, slots[i].length, 0});
      bytes += slots[i].length;
      left -= slots[i].length;
    }
    Writer answer;
    answer.Put(engine_->Read(pieces_.data(), count, stale));
    for (uint32_t i = 0; i < count; ++i)
      slots[i].transferred = static_cast<uint32_t>(pieces_[i].transferred);
    return answer.bytes();
  }

  std::string Listen(Reader* request) {
    const Duration timeout(request->Take<int64_t>());
    Cr3Writes taken;
    Writer answer;
    answer.Put(listener_->Take(timeout, &taken)).Put(taken.dropped);
    answer.Put(static_cast<uint32_t>(taken.writes.size()));
    for (const Cr3Write& write : taken.writes)
      answer.Put(write.value).Put(write.previous).Put(write.vcpu);
    return answer.bytes();
  }

  uint8_t* shared_;
  host::EngineLock lock_;
  std::unique_ptr<LocalEngine> engine_;
  std::unique_ptr<host::Listener> listener_;
  std::atomic<host::Listener*> listener_now_{nullptr};
  std::vector<Piece> pieces_;
};

// A call that never returns would keep this process after its owner is gone.
void* WatchOwner(void* host) {
  pollfd socket = {wire::kSocket, 0, 0};
  while (poll(&socket, 1, -1) < 0 && errno == EINTR) {
  }
  usleep(kGrace.count() * 1000);
  static_cast<Host*>(host)->EndNow();
  _exit(1);
}

sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

// A signal ends this process as it would have, but for the guest, which is let go before.
void* WatchSignals(void* host) {
  const sigset_t signals = EndSignals();
  int number = SIGTERM;
  while (sigwait(&signals, &number) != 0) {
  }
  static_cast<Host*>(host)->EndNow();
  signal(number, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  raise(number);
  _exit(128 + number);
}

void StartThread(void* (*main)(void*), void* argument) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, main, argument) == 0) pthread_detach(thread);
}

void CloseInherited() {
  // What was left open in the process that started this one is none of libvmi's business.
  if (syscall(436 /* close_range */, wire::kShared + 1, ~0u, 0) != 0) {
    for (int fd = wire::kShared + 1; fd < 4096; ++fd) close(fd);
  }
  fcntl(wire::kSocket, F_SETFD, FD_CLOEXEC);
  fcntl(wire::kShared, F_SETFD, FD_CLOEXEC);
}

int Serve(uint8_t* shared) {
  // The owner reads what is printed here; when it is gone, that must not end this process.
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Host host(shared);
  const sigset_t signals = EndSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  StartThread(WatchSignals, &host);
  StartThread(WatchOwner, &host);
  std::string frame;
  bool last = false;
  while (!last && Receive(&frame)) {
    const std::string answer = host.Answer(frame, &last);
    if (answer.empty() || !Send(answer)) break;
  }
  host.End();
  // Not exit(): what libraries do at the end has been known to hang.
  _exit(0);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string mode = count == 3 ? arguments[1] : "";
  const auto domain = static_cast<uint32_t>(count == 3 ? strtoul(arguments[2], nullptr, 10) : 0);
  if (mode == "--release") return host::ReleaseMain(domain);
  if (mode == "--monitor") return host::MonitorMain(domain);
  void* memory =
      mmap(nullptr, wire::kSharedSize, PROT_READ | PROT_WRITE, MAP_SHARED, wire::kShared, 0);
  if (memory == MAP_FAILED) {
    fputs("this program is part of node-libvmi, which starts it\n", stderr);
    return 2;
  }
  CloseInherited();
  auto* shared = static_cast<uint8_t*>(memory);
  return mode == "--guard" ? host::Guard::Main(domain, wire::LeaseIn(shared)) : Serve(shared);
}
