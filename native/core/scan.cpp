#include "scan.h"

#include <cstring>

#include <algorithm>
#include <string>
#include <utility>

#include "bus_guard.h"

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

// Finds candidates in memory that can be loaded. Trivial, and allocates nothing: SIGBUS may jump out of it.
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

  // Tries the addresses from `start` on, `count` of them; `bytes` are those at `start`, and the pattern's
  // length less one more than `count`.
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
        if (bytes[i + first_] == pattern_[first_] && std::memcmp(bytes + i, pattern_, length_) == 0) {
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

// One call of Scan.
class Scanner {
 public:
  Scanner(Memory* memory, const ScanRequest& request, const std::function<bool()>& is_cancelled)
      : memory_(memory), request_(request), is_cancelled_(is_cancelled), hits_(request.max), matcher_(request, hits_.data()) {}

  Result<std::vector<uint64_t>> Run() {
    for (const Range& range : memory_->ranges()) {
      const uint64_t first = std::max(range.start, request_.start);
      const uint64_t last = std::min(range.last(), request_.last);
      if (first > last) continue;
      Status status = ScanRange(first, last);
      if (!status.ok()) return status;
      if (matcher_.full()) break;
    }
    hits_.resize(matcher_.count());
    return std::move(hits_);
  }

 private:
  Status Interrupted() const {
    if (is_cancelled_()) return {Code::kAborted, "the scan was aborted"};
    return memory_->Check();
  }

  // Runs of data of one range, in pieces; all bytes between them are zero.
  Status ScanRange(uint64_t first, uint64_t last) {
    const uint64_t overlap = matcher_.length() - 1;
    // The lowest address that was not tried. Addresses from which the pattern would leave the range never are.
    uint64_t untried = first;
    for (uint64_t from = first;;) {
      Status status = Interrupted();
      if (!status.ok()) return status;
      Range run;
      if (!memory_->NextData(from, last, kChunk, &run)) return {};
      // A pattern may begin in the zeroes before the run.
      const uint64_t lead = std::min(overlap, run.start - untried);
      if (lead > 0) TryCopied(run.start - lead, lead, last);
      if (run.length > overlap) TryRun(run);
      // … and end behind it, in the next run or in zeroes.
      const uint64_t tail = std::min<uint64_t>(overlap, run.length);
      if (tail > 0) TryCopied(run.last() - (tail - 1), tail, last);
      if (matcher_.full() || run.last() >= last) return Interrupted();
      untried = run.last() + 1;
      from = untried;
    }
  }

  // `count` addresses from `start` on, over a copy. `last`: of the range.
  void TryCopied(uint64_t start, uint64_t count, uint64_t last) {
    uint8_t bytes[2 * ScanRequest::kMaxPattern];
    const uint64_t wanted = std::min(count + matcher_.length() - 1, last - start + 1);
    const size_t read = memory_->Copy(start, bytes, static_cast<size_t>(wanted));
    if (read >= matcher_.length()) matcher_.Match(bytes, start, std::min<uint64_t>(count, read - matcher_.length() + 1));
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
      const size_t read = memory_->Copy(run.start + at, buffer_.data(), static_cast<size_t>(wanted));
      if (read > overlap) matcher_.Match(buffer_.data(), run.start + at, read - overlap);
      if (read == wanted) {
        at += wanted - overlap;
      } else {
        if (is_cancelled_() || !memory_->Check().ok()) return;
        // On the far side of the page that cannot be read.
        const uint64_t bad = run.start + at + read;
        at += read + (kPageSize - (bad & kPageMask));
      }
    }
  }

  Memory* memory_;
  const ScanRequest& request_;
  const std::function<bool()>& is_cancelled_;
  std::vector<uint64_t> hits_;
  Matcher matcher_;
  std::vector<uint8_t> buffer_;
};

Status CheckRequest(const ScanRequest& request) {
  const auto misuse = [](const std::string& expected, uint64_t received) {
    return Status(Code::kMisuse, "Expected " + expected + " but received " + std::to_string(received));
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
  if (request.max < 1 || request.max > ScanRequest::kMaxHits) return misuse("max between 1 and 65536", request.max);
  return {};
}

}  // namespace

Result<std::vector<uint64_t>> Scan(Memory* memory, ScanRequest request, const std::function<bool()>& is_cancelled) {
  Status status = CheckRequest(request);
  if (!status.ok()) return status;
  std::sort(request.offsets.begin(), request.offsets.end());
  request.offsets.erase(std::unique(request.offsets.begin(), request.offsets.end()), request.offsets.end());

  const Memory::Use use(memory);
  if (!use.status().ok()) return Error(use.status().error());
  return Scanner(memory, request, is_cancelled).Run();
}

}  // namespace vmi
