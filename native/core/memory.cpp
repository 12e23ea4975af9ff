#include "core/memory.h"

#include <cstring>

#include <algorithm>
#include <utility>

#include "core/bus_guard.h"

namespace vmi {

Memory::Memory(std::unique_ptr<PhysicalSource> source)
    : source_(std::move(source)),
      ranges_(source_->ranges()),
      mapped_(source_->mapped()),
      parallel_(source_->parallel()),
      writable_(source_->writable()) {}

Memory::~Memory() { Close(); }

Status Memory::Begin() {
  Status status = Check();
  if (!status.ok() && !Recover()) return status;
  status = source_->Begin();
  // It may answer the next one.
  if (status.ok() || source_->recovers()) return status;
  Fail(std::move(status));
  return Check();
}

Status Memory::Unusable() const {
  const std::lock_guard lock(mutex_);
  if (closed_) return {Code::kClosed, "the memory is closed"};
  if (!failure_.ok()) return Error(failure_.error());
  return {};
}

bool Memory::Recover() {
  const std::lock_guard lock(mutex_);
  if (closed_ || !source_->recovers()) return false;
  failure_ = {};
  open_.store(true, std::memory_order_relaxed);
  return true;
}

void Memory::Fail(Status status) {
  const std::lock_guard lock(mutex_);
  if (failure_.ok()) failure_ = std::move(status);
  open_.store(false, std::memory_order_relaxed);
}

Result<size_t> Memory::Read(uint64_t physical, uint8_t* into, size_t length) {
  ReadRequest request{physical, into, length, 0};
  Status status = ReadMany(&request, 1);
  if (!status.ok()) return status;
  return request.transferred;
}

Status Memory::ReadMany(ReadRequest* requests, size_t count) {
  Status status = Check();
  if (!status.ok()) return status;
  CopyBatch(requests, count);
  return Check();
}

Result<uint64_t> Memory::ReadU64(uint64_t physical) {
  Status status = Check();
  if (!status.ok()) return status;
  uint64_t value = 0;
  if (LoadU64(physical, &value)) return value;
  const size_t read = Copy(physical, reinterpret_cast<uint8_t*>(&value), sizeof value);
  status = Check();
  if (!status.ok()) return status;
  if (read == sizeof value) return value;
  Error error;
  error.code = Code::kFault;
  error.fault = {physical + read, false, 0, sizeof value, read, 0, Absent(physical + read)};
  return error;
}

Result<size_t> Memory::Write(uint64_t physical, const uint8_t* from, size_t length) {
  Status status = Check();
  if (!status.ok()) return status;
  if (!writable_) return {Code::kUnsupported, "the memory was not opened for writing"};
  return source_->Write(physical, from, length);
}

size_t Memory::Copy(uint64_t physical, uint8_t* into, size_t length) {
  ReadRequest request{physical, into, length, 0};
  CopyBatch(&request, 1);
  return request.transferred;
}

void Memory::CopyBatch(ReadRequest* requests, size_t count) {
  // To wake the helper takes as long as some reads.
  constexpr size_t kLarge = 256;
  constexpr size_t kBlock = 64;
  if (!parallel_ || count < kLarge) return CopyBlock(requests, count);
  ForBlocks((count + kBlock - 1) / kBlock, [&](size_t block, int) {
    CopyBlock(requests + block * kBlock, std::min(kBlock, count - block * kBlock));
  });
}

void Memory::CopyBlock(ReadRequest* requests, size_t count) {
  // After an error the rest of an operation reads nothing.
  Status status = open_.load(std::memory_order_relaxed) ? Status() : Unusable();
  if (status.ok()) status = source_->Read(requests, count);
  if (status.ok()) return;
  for (size_t i = 0; i < count; ++i) requests[i].transferred = 0;
  Fail(std::move(status));
}

bool Memory::LoadU64(uint64_t physical, uint64_t* value) {
  const uint8_t* direct = source_->Direct(physical, sizeof *value);
  if (direct != nullptr && WithBusGuard([&] { std::memcpy(value, direct, sizeof *value); }))
    return true;
  return Copy(physical, reinterpret_cast<uint8_t*>(value), sizeof *value) == sizeof *value;
}

bool Memory::Absent(uint64_t physical) { return source_->Absent(physical); }

const Range* Memory::FindRange(uint64_t physical) const {
  auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), physical,
                       [](uint64_t value, const Range& range) { return value < range.start; });
  if (after == ranges_.begin()) return nullptr;
  --after;
  return after->Contains(physical) ? &*after : nullptr;
}

void Memory::Close() {
  std::unique_lock lock(mutex_);
  open_.store(false, std::memory_order_relaxed);
  closed_ = true;
  idle_.wait(lock, [this] { return uses_ == 0; });
  lock.unlock();
  // Without the lock: the helper's job takes it to tell of a failure.
  helper_.Stop();
  if (source_ == nullptr) return;
  source_->Close();
  source_.reset();
}

Memory::Use::Use(Memory* memory) : memory_(memory) {
  status_ = memory->Check();
  const std::lock_guard lock(memory->mutex_);
  if (memory->closed_) {
    status_ = Status(Code::kClosed, "the memory is closed");
    memory_ = nullptr;
    return;
  }
  ++memory->uses_;
}

Memory::Use::~Use() {
  if (memory_ == nullptr) return;
  const std::lock_guard lock(memory_->mutex_);
  if (--memory_->uses_ == 0) memory_->idle_.notify_all();
}

}  // namespace vmi
