#include "core/scan/scan.h"

#include <cstring>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include <pthread.h>

#include "core/bus_guard.h"

namespace vmi {

namespace {

// Between two questions whether to go on; and what is read at a time where memory is not mapped.
constexpr uint64_t kChunk = uint64_t{2} << 20;
// Read at a time where a mapped page turned out to be gone.
constexpr uint64_t kSmallChunk = uint64_t{64} << 10;

// 16 bytes at a time, on every processor the compilers know.
using Bytes16 = uint8_t __attribute__((vector_size(16)));
using Words2 = uint64_t __attribute__((vector_size(16)));

Bytes16 LoadBytes(const uint8_t* from) {
  Bytes16 bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

Bytes16 Repeat(uint8_t byte) {
  Bytes16 bytes;
  std::memset(&bytes, byte, sizeof bytes);
  return bytes;
}

bool AnySet(Bytes16 bytes) {
  const auto words = reinterpret_cast<Words2>(bytes);
  return (words[0] | words[1]) != 0;
}

// Finds candidates in memory that can be loaded. Trivial, and allocates nothing: SIGBUS may jump
// out of it.
class Matcher {
 public:
  Matcher(const ScanRequest& request, uint64_t* hits)
      : pattern_(request.pattern.data()),
        length_(request.pattern.size()),
        stride_(request.stride),
        offsets_(request.offsets.data()),
        offset_count_(request.offsets.size()),
        max_(request.max),
        hits_(hits) {
    // Two bytes to look for, preferably not such as fill memory.
    while (first_ + 1 < length_ && IsCommon(pattern_[first_])) ++first_;
    if (IsCommon(pattern_[first_])) first_ = 0;
    last_ = length_ - 1;
    while (last_ > first_ && IsCommon(pattern_[last_])) --last_;
    if (last_ == first_) last_ = length_ - 1;
    std::memcpy(&head_, pattern_, std::min(length_, sizeof head_));
  }

  size_t length() const { return length_; }
  size_t count() const { return count_; }
  void set_count(size_t count) { count_ = count; }
  bool full() const { return count_ == max_; }

  // Tries the addresses from `start` on, `count` of them; `bytes` are those at `start`, and the
  // pattern's length less one more than `count`.
  void Match(const uint8_t* bytes, uint64_t start, uint64_t count) {
    if (stride_ == 1) {
      MatchEverywhere(bytes, start, count);
    } else {
      MatchStrided(bytes, start, count);
    }
  }

 private:
  static bool IsCommon(uint8_t byte) { return byte == 0 || byte == 0xff || byte == ' '; }

  void MatchEverywhere(const uint8_t* bytes, uint64_t start, uint64_t count) {
    const Bytes16 first = Repeat(pattern_[first_]);
    const Bytes16 last = Repeat(pattern_[last_]);
    uint64_t i = 0;
    while (i < count && count_ < max_) {
      if (count - i >= 64) {
        // The furthest load, of the last address at its last byte, is within what Match promises.
        Bytes16 equal[4];
        for (int k = 0; k < 4; ++k) {
          const uint8_t* at = bytes + i + k * 16;
          equal[k] = reinterpret_cast<Bytes16>(LoadBytes(at + first_) == first) &
                     reinterpret_cast<Bytes16>(LoadBytes(at + last_) == last);
        }
        if (!AnySet((equal[0] | equal[1]) | (equal[2] | equal[3]))) {
          i += 64;
          continue;
        }
      }
      const uint64_t end = std::min<uint64_t>(count, i + 64);
      for (; i < end && count_ < max_; ++i) {
        if (bytes[i + first_] == pattern_[first_] &&
            std::memcmp(bytes + i, pattern_, length_) == 0) {
          hits_[count_++] = start + i;
        }
      }
    }
  }

  void MatchStrided(const uint8_t* bytes, uint64_t start, uint64_t count) {
    const bool has_head = length_ >= sizeof head_;
    // k * stride at or below `start`: offsets below the stride are tried from there on.
    for (uint64_t base = start - start % stride_;; base += stride_) {
      for (size_t i = 0; i < offset_count_; ++i) {
        if (base > UINT64_MAX - offsets_[i]) return;
        const uint64_t address = base + offsets_[i];
        if (address < start) continue;
        const uint64_t at = address - start;
        if (at >= count) return;
        if (has_head) {
          uint64_t word;
          std::memcpy(&word, bytes + at, sizeof word);
          if (word != head_) continue;
        }
        if (std::memcmp(bytes + at, pattern_, length_) != 0) continue;
        if (count_ == max_) return;
        hits_[count_++] = address;
      }
      if (base > UINT64_MAX - stride_) return;
    }
  }

  const uint8_t* pattern_;
  size_t length_;
  uint64_t stride_;
  const uint64_t* offsets_;
  size_t offset_count_;
  size_t max_;
  uint64_t* hits_;
  size_t count_ = 0;
  // Where the two bytes are that MatchEverywhere looks for.
  size_t first_ = 0;
  size_t last_ = 0;
  // The first eight bytes, for MatchStrided.
  uint64_t head_ = 0;
};

// Data of one range, and what comes before it.
struct Piece {
  Range run;
  // The lowest address that was not tried: all bytes from there to the run are zero.
  uint64_t untried = 0;
  // Of the range.
  uint64_t last = 0;
};

// What is left of the memory to scan, handed out in pieces, ascending. Any thread.
class Pieces {
 public:
  Pieces(Memory* memory, const ScanRequest& request) : memory_(memory), request_(request) {}

  bool Next(Piece* piece) {
    const std::lock_guard lock(mutex_);
    for (;;) {
      if (!in_range_ && !EnterRange()) return false;
      in_range_ = false;
      // Memory that is read is cut between pages: one that cannot be read is never in two pieces.
      Range run;
      if (!memory_->NextData(untried_, last_, kChunk - untried_ % kChunk, &run)) continue;
      *piece = {run, untried_, last_};
      untried_ = run.last() + 1;
      in_range_ = run.last() < last_;
      return true;
    }
  }

 private:
  bool EnterRange() {
    const std::vector<Range>& ranges = memory_->ranges();
    while (range_ < ranges.size()) {
      const Range& range = ranges[range_++];
      untried_ = std::max(range.start, request_.start);
      last_ = std::min(range.last(), request_.last);
      if (untried_ <= last_) return true;
    }
    return false;
  }

  Memory* memory_;
  const ScanRequest& request_;
  std::mutex mutex_;
  // The next range, and what is left of the one before it.
  size_t range_ = 0;
  bool in_range_ = false;
  uint64_t untried_ = 0;
  uint64_t last_ = 0;
};

// What the threads of one call of Scan share.
struct Shared {
  Memory* memory;
  const ScanRequest& request;
  Pieces pieces;
  // Hits of all threads. Pieces are handed out in order: with `max` in those that were, no later
  // one matters.
  std::atomic<size_t> found{0};
  std::atomic<bool> stopped{false};
};

// One thread of a scan.
class Scanner {
 public:
  explicit Scanner(Shared* shared)
      : shared_(shared),
        memory_(shared->memory),
        hits_(shared->request.max),
        matcher_(shared->request, hits_.data()) {}

  // Until nothing is left, enough was found, the memory is closed, or another thread stops.
  // `is_cancelled` may be null.
  void Run(const std::function<bool()>* is_cancelled) {
    is_cancelled_ = is_cancelled;
    Piece piece;
    while (!Stopped() && shared_->found.load(std::memory_order_relaxed) < shared_->request.max &&
           shared_->pieces.Next(&piece)) {
      const size_t before = matcher_.count();
      Try(piece);
      shared_->found.fetch_add(matcher_.count() - before, std::memory_order_relaxed);
    }
  }

  static void* RunThread(void* scanner) {
    static_cast<Scanner*>(scanner)->Run(nullptr);
    return nullptr;
  }

  const uint64_t* begin() const { return hits_.data(); }
  const uint64_t* end() const { return hits_.data() + matcher_.count(); }

 private:
  bool Stopped() {
    if (is_cancelled_ != nullptr && (*is_cancelled_)())
      shared_->stopped.store(true, std::memory_order_relaxed);
    return shared_->stopped.load(std::memory_order_relaxed) || !memory_->Check().ok();
  }

  void Try(const Piece& piece) {
    const uint64_t overlap = matcher_.length() - 1;
    const Range& run = piece.run;
    // A pattern may begin in the zeroes before the run. Addresses from which it would leave the
    // range are never tried.
    const uint64_t lead = std::min(overlap, run.start - piece.untried);
    if (lead > 0) TryCopied(run.start - lead, lead, piece.last);
    if (run.length > overlap) TryRun(run);
    // … and end behind it, in the next run or in zeroes.
    const uint64_t tail = std::min<uint64_t>(overlap, run.length);
    if (tail > 0) TryCopied(run.last() - (tail - 1), tail, piece.last);
  }

  // `count` addresses from `start` on, over a copy. `last`: of the range.
  void TryCopied(uint64_t start, uint64_t count, uint64_t last) {
    uint8_t bytes[2 * ScanRequest::kMaxPattern];
    const uint64_t wanted = std::min(count + matcher_.length() - 1, last - start + 1);
    const size_t read = memory_->Copy(start, bytes, static_cast<size_t>(wanted));
    if (read >= matcher_.length())
      matcher_.Match(bytes, start, std::min<uint64_t>(count, read - matcher_.length() + 1));
  }

  // All addresses from which the pattern stays within the run.
  void TryRun(const Range& run) {
    const uint64_t count = run.length - (matcher_.length() - 1);
    const uint8_t* direct = memory_->Direct(run.start, static_cast<size_t>(run.length));
    if (direct != nullptr) {
      const size_t before = matcher_.count();
      if (WithBusGuard([&] { matcher_.Match(direct, run.start, count); })) return;
      // A file was truncated under the mapping: what is left of it is read.
      matcher_.set_count(before);
    }
    TryRead(run, direct != nullptr ? kSmallChunk : kChunk);
  }

  void TryRead(const Range& run, uint64_t chunk) {
    const uint64_t overlap = matcher_.length() - 1;
    buffer_.resize(static_cast<size_t>(std::min(run.length, chunk + overlap)));
    for (uint64_t at = 0; at + overlap < run.length && !matcher_.full();) {
      const uint64_t wanted = std::min<uint64_t>(run.length - at, buffer_.size());
      const size_t read =
          memory_->Copy(run.start + at, buffer_.data(), static_cast<size_t>(wanted));
      if (read > overlap) matcher_.Match(buffer_.data(), run.start + at, read - overlap);
      if (read == wanted) {
        at += wanted - overlap;
      } else {
        if (Stopped()) return;
        // On the far side of the page that cannot be read.
        const uint64_t bad = run.start + at + read;
        at += read + (kPageSize - (bad & kPageMask));
      }
    }
  }

  Shared* shared_;
  Memory* memory_;
  const std::function<bool()>* is_cancelled_ = nullptr;
  std::vector<uint64_t> hits_;
  Matcher matcher_;
  std::vector<uint8_t> buffer_;
};

Status CheckRequest(const ScanRequest& request) {
  const auto misuse = [](const std::string& expected, uint64_t received) {
    return Status(Code::kMisuse,
                  "Expected " + expected + " but received " + std::to_string(received));
  };
  if (request.pattern.empty() || request.pattern.size() > ScanRequest::kMaxPattern) {
    return misuse("a pattern of 1 to 256 bytes", request.pattern.size());
  }
  if (request.stride < 1 || request.stride > ScanRequest::kMaxStride) {
    return misuse("stride between 1 and 2^30", request.stride);
  }
  if (request.offsets.empty() || request.offsets.size() > ScanRequest::kMaxOffsets) {
    return misuse("1 to 64 offsets", request.offsets.size());
  }
  for (const uint64_t offset : request.offsets) {
    if (offset >= request.stride) return misuse("offsets below the stride", offset);
  }
  if (request.max < 1 || request.max > ScanRequest::kMaxHits)
    return misuse("max between 1 and 65536", request.max);
  if (request.threads > ScanRequest::kMaxThreads)
    return misuse("at most 16 threads", request.threads);
  return {};
}

// How many threads scan.
size_t CountThreads(const Memory& memory, const ScanRequest& request) {
  // One read at a time: more threads would wait for each other.
  if (!memory.mapped() && !memory.parallel()) return 1;
  if (request.threads != 0) return request.threads;
  uint64_t bytes = 0;
  for (const Range& range : memory.ranges()) {
    const uint64_t first = std::max(range.start, request.start);
    const uint64_t last = std::min(range.last(), request.last);
    if (first <= last) bytes += std::min(last - first, UINT64_MAX - 1 - bytes) + 1;
  }
  const uint64_t wanted =
      std::min<uint64_t>(bytes / ScanRequest::kPerThread, ScanRequest::kUsualThreads);
  return std::max<size_t>(1, std::min<size_t>(wanted, std::thread::hardware_concurrency()));
}

}  // namespace

Result<std::vector<uint64_t>> Scan(Memory* memory, ScanRequest request,
                                   const std::function<bool()>& is_cancelled) {
  Status status = CheckRequest(request);
  if (!status.ok()) return status;
  std::sort(request.offsets.begin(), request.offsets.end());
  request.offsets.erase(std::unique(request.offsets.begin(), request.offsets.end()),
                        request.offsets.end());

  const Memory::Use use(memory);
  if (!use.status().ok()) return Error(use.status().error());
  Shared shared{memory, request, Pieces(memory, request)};
  std::vector<std::unique_ptr<Scanner>> scanners(CountThreads(*memory, request));
  for (auto& scanner : scanners) scanner = std::make_unique<Scanner>(&shared);
  // pthread_create and not std::thread, which throws where there is no thread to be had: then fewer
  // do it.
  std::vector<pthread_t> threads;
  threads.reserve(scanners.size());
  for (size_t i = 1; i < scanners.size(); ++i) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, Scanner::RunThread, scanners[i].get()) != 0) break;
    threads.push_back(thread);
  }
  scanners[0]->Run(&is_cancelled);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);

  if (shared.stopped.load(std::memory_order_relaxed) || is_cancelled())
    return {Code::kAborted, "the scan was aborted"};
  status = memory->Check();
  if (!status.ok()) return status;
  // Each has the lowest of what it looked at, and together they looked at everything below the last
  // that is kept.
  std::vector<uint64_t> hits;
  for (const auto& scanner : scanners) hits.insert(hits.end(), scanner->begin(), scanner->end());
  std::sort(hits.begin(), hits.end());
  if (hits.size() > request.max) hits.resize(request.max);
  return hits;
}

}  // namespace vmi
