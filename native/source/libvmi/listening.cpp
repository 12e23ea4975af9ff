#include "source/libvmi/listening.h"

#include <chrono>
#include <memory>
#include <utility>

namespace libvmi {

void Listening::Begin(size_t capacity) {
  active_ = true;
  queue_.Reset(capacity);
  end_ = {};
}

Listening::Call Listening::Add(const Cr3Writes& batch) {
  queue_.Add(batch);
  return taker_ && !queue_.empty() ? HandOver() : nullptr;
}

Listening::Call Listening::HandOver() {
  const auto batch = std::make_shared<Cr3Writes>(queue_.Take(std::chrono::milliseconds(0)));
  return [taker = std::exchange(taker_, nullptr), batch] { taker({}, std::move(*batch)); };
}

Listening::Call Listening::End(vmi::Status reason) {
  active_ = false;
  end_ = std::move(reason);
  if (!taker_) return nullptr;
  const auto error = std::make_shared<vmi::Error>(end_.error());
  return [taker = std::exchange(taker_, nullptr), error, dropped = queue_.dropped()] {
    taker(*error, {{}, dropped});
  };
}

vmi::Status Listening::Refusal() const {
  if (taker_) return {vmi::Code::kUnsupported, "somebody waits for writes to CR3 already"};
  if (active_ || !queue_.empty()) return {};
  if (end_.ok()) return {vmi::Code::kUnsupported, "no writes to CR3 are listened for"};
  return vmi::Status(vmi::Error(end_.error()));
}

Listening::Call Listening::Wait(Taker taker) {
  taker_ = std::move(taker);
  return queue_.empty() ? nullptr : HandOver();
}

}  // namespace libvmi
