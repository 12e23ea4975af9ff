#include "core/lookup/read_paths.h"

#include <cstring>
#include <ctime>

namespace vmi {

namespace {

// Milliseconds. What was read ahead is no older than this when it is used.
constexpr int64_t kMaxAge = 10;

int64_t CoarseMilliseconds() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return time.tv_sec * int64_t{1000} + time.tv_nsec / 1'000'000;
}

}  // namespace

ReadPaths::Along::Along(ReadPaths* paths) : space_(paths->space_) {
  if (paths->path_ == nullptr) return;
  if (CoarseMilliseconds() - paths->began_ > kMaxAge) {
    paths->End();
  } else {
    space_->set_detour(paths);
  }
}

void ReadPaths::Begin(uint64_t head, uint64_t index) {
  End();
  Memory* memory = space_->memory().get();
  if (!memory->parallel()) return;
  if (paths_.empty()) paths_.resize(kPaths);
  // PIDs follow each other.
  Path& path = paths_[(index + (head >> 3)) % kPaths];
  // Before the first read: the batch itself may be held up between two of them.
  began_ = CoarseMilliseconds();
  if (path.count > 0 && path.head == head && path.index == index) {
    size_t at = 0;
    for (; ahead_count_ < path.count; ++ahead_count_) {
      const Step& step = path.steps[ahead_count_];
      ahead_[ahead_count_] = {step.physical, buffer_.data() + at, step.length, 0};
      at += step.length;
    }
    memory->CopyBatch(ahead_.data(), ahead_count_);
  }
  path.head = head;
  path.index = index;
  path.count = 0;
  path_ = &path;
  bytes_ = 0;
}

bool ReadPaths::Take(ReadRequest* request) {
  for (size_t i = 0; i < ahead_count_; ++i) {
    ReadRequest& ahead = ahead_[i];
    if (ahead.into == nullptr || ahead.physical != request->physical ||
        ahead.length != request->length)
      continue;
    // All of it or nothing: what is missing, a read of its own will tell.
    if (ahead.transferred != ahead.length) return false;
    std::memcpy(request->into, ahead.into, ahead.length);
    request->transferred = ahead.length;
    ahead.into = nullptr;
    return true;
  }
  return false;
}

void ReadPaths::CopyAlong(ReadRequest* requests, size_t count) {
  Memory* memory = space_->memory().get();
  // No look-up reads that much at once.
  if (count > kMaxReads) return memory->CopyBatch(requests, count);
  std::array<ReadRequest, kMaxReads> unread;
  std::array<ReadRequest*, kMaxReads> owners;
  size_t unread_count = 0;
  for (size_t i = 0; i < count; ++i) {
    ReadRequest& request = requests[i];
    if (path_->count < kMaxReads && request.length <= kMaxBytes - bytes_) {
      path_->steps[path_->count++] = {request.physical, static_cast<uint32_t>(request.length)};
      bytes_ += request.length;
    }
    if (Take(&request)) continue;
    unread[unread_count] = request;
    owners[unread_count++] = &request;
  }
  if (unread_count == 0) return;
  memory->CopyBatch(unread.data(), unread_count);
  for (size_t i = 0; i < unread_count; ++i) owners[i]->transferred = unread[i].transferred;
}

}  // namespace vmi
