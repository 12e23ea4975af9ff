// The process that runs libvmi for an isolated instance. Started by HostProcess, which see; it does
// what it is asked, one request at a time, and ends when its socket is closed.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "source/libvmi/local.h"
#include "source/libvmi/wire.h"

namespace {

using namespace libvmi;
using wire::Op;
using wire::Reader;
using wire::Slot;
using wire::Writer;

// How long a call that is inside libvmi may go on when nobody waits for it any more.
constexpr int kGraceSeconds = 2;

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

// A call that never returns would keep this process after its owner is gone.
void* Watch(void*) {
  pollfd socket = {wire::kSocket, 0, 0};
  while (poll(&socket, 1, -1) < 0 && errno == EINTR) {
  }
  sleep(kGraceSeconds);
  _exit(1);
}

class Host {
 public:
  explicit Host(uint8_t* shared) : shared_(shared) {}

  // The answer, or an empty one for what is no request.
  std::string Answer(const std::string& frame, bool* last) {
    Reader request(frame);
    const Op op = request.Take<Op>();
    if (op == Op::kHello) return Hello(&request);
    if (engine_ == nullptr) return {};
    Writer answer;
    switch (op) {
      case Op::kHello:
        break;
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
      case Op::kStartCr3Writes:
        answer.Put(engine_->StartCr3Writes());
        break;
      case Op::kListen:
        return Listen(&request);
      case Op::kStopCr3Writes:
        answer.Put(engine_->StopCr3Writes());
        break;
      case Op::kEnd:
        End();
        answer.Put(vmi::Status());
        *last = true;
        break;
    }
    return answer.bytes();
  }

  void End() {
    if (engine_ != nullptr) engine_->End();
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
    std::vector<Cr3Write> writes;
    Writer answer;
    answer.Put(engine_->Listen(timeout, &writes)).Put(static_cast<uint32_t>(writes.size()));
    for (const Cr3Write& write : writes)
      answer.Put(write.value).Put(write.previous).Put(write.vcpu);
    return answer.bytes();
  }

  uint8_t* shared_;
  std::unique_ptr<LocalEngine> engine_;
  std::vector<Piece> pieces_;
};

}  // namespace

int main() {
  void* shared =
      mmap(nullptr, wire::kSharedSize, PROT_READ | PROT_WRITE, MAP_SHARED, wire::kShared, 0);
  if (shared == MAP_FAILED) {
    fputs("this program is part of node-libvmi, which starts it\n", stderr);
    return 2;
  }
  // What was left open in the process that started this one is none of libvmi's business.
  if (syscall(436 /* close_range */, wire::kShared, ~0u, 0) != 0) {
    for (int fd = wire::kShared; fd < 4096; ++fd) close(fd);
  }
  fcntl(wire::kSocket, F_SETFD, FD_CLOEXEC);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  pthread_t watcher;
  if (pthread_create(&watcher, nullptr, Watch, nullptr) == 0) pthread_detach(watcher);

  Host host(static_cast<uint8_t*>(shared));
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
