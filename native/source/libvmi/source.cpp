#include "source/libvmi/source.h"

#include <string.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace libvmi {
namespace {

// The most one queued call may read.
constexpr size_t kBytesPerCall = 256 * 1024;
constexpr size_t kPiecesPerCall = 1024;
// How long a queued call should take: far below any sensible deadline, far above a change of
// threads. A page takes 1.4 ms where it is text from QEMU's monitor (KVM without libvmi's patch),
// and 80 ms were seen where the host was busy besides.
constexpr std::chrono::milliseconds kShort{50};
constexpr std::chrono::milliseconds kLong{250};

}  // namespace

Source::Source(std::shared_ptr<Session> session, std::vector<Segment> segments)
    : session_(std::move(session)), segments_(std::move(segments)) {
  for (const Segment& segment : segments_) {
    if (!ranges_.empty() && ranges_.back().start + ranges_.back().length == segment.physical) {
      ranges_.back().length += segment.length;
    } else {
      ranges_.push_back({segment.physical, segment.length});
    }
  }
}

vmi::Result<std::unique_ptr<vmi::PhysicalSource>> Source::Create(std::shared_ptr<Session> session,
                                                                 std::vector<Segment> segments) {
  uint64_t end = 0;
  for (const Segment& segment : segments) {
    const bool aligned =
        ((segment.physical | segment.length | segment.libvmi_address) & vmi::kPageMask) == 0;
    if (!aligned || segment.length == 0 || segment.physical < end ||
        segment.physical + segment.length < segment.physical) {
      return {vmi::Code::kMisuse, "segments must be page-aligned, ascending and without overlap"};
    }
    end = segment.physical + segment.length;
  }
  return std::unique_ptr<vmi::PhysicalSource>(new Source(std::move(session), std::move(segments)));
}

const Segment* Source::Find(uint64_t physical) const {
  for (const Segment& segment : segments_) {
    if (physical - segment.physical < segment.length) return &segment;
  }
  return nullptr;
}

vmi::Status Source::Read(vmi::ReadRequest* requests, size_t count) {
  // One request in one piece is by far the most frequent.
  if (count == 1) {
    const Segment* segment = Find(requests->physical);
    const uint64_t offset = segment != nullptr ? requests->physical - segment->physical : 0;
    if (segment != nullptr && requests->length <= segment->length - offset) {
      Piece piece = {segment->libvmi_address + offset, requests->into, requests->length, 0};
      requests->transferred = 0;
      vmi::Status status = ReadPieces(&piece, 1);
      if (status.ok()) requests->transferred = piece.transferred;
      return status;
    }
  }
  std::vector<Piece> pieces;
  std::vector<size_t> owners;
  pieces.reserve(count);
  owners.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    requests[i].transferred = 0;
    for (size_t done = 0; done < requests[i].length;) {
      const uint64_t address = requests[i].physical + done;
      const Segment* segment = Find(address);
      if (segment == nullptr) break;
      const uint64_t offset = address - segment->physical;
      const auto part = static_cast<size_t>(
          std::min<uint64_t>(requests[i].length - done, segment->length - offset));
      pieces.push_back({segment->libvmi_address + offset, requests[i].into + done, part, 0});
      owners.push_back(i);
      done += part;
    }
  }
  vmi::Status status = ReadPieces(pieces.data(), pieces.size());
  if (!status.ok()) return status;
  for (size_t i = 0; i < pieces.size(); ++i) {
    vmi::ReadRequest& request = requests[owners[i]];
    // Behind the first byte that cannot be read nothing counts.
    if (request.into + request.transferred == pieces[i].into)
      request.transferred += pieces[i].transferred;
  }
  return {};
}

vmi::Status Source::ReadPieces(Piece* pieces, size_t count) {
  const bool stale = TakeStale();
  vmi::Status status;
  const auto direct = [&](Engine& engine) { return engine.Read(pieces, count, stale); };
  return session_->TryDirect(direct, &status) ? std::move(status)
                                              : ReadQueued(pieces, count, stale);
}

vmi::Status Source::ReadQueued(Piece* pieces, size_t count, bool stale) {
  // The queued call fills memory of its own: it may return long after its caller gave up.
  struct Batch {
    std::vector<Piece> pieces;
    std::vector<uint8_t> bytes;
  };
  size_t next = 0;
  size_t offset = 0;  // in pieces[next]
  for (size_t i = 0; i < count; ++i) pieces[i].transferred = 0;
  while (next < count) {
    auto batch = std::make_shared<Batch>();
    const size_t most = pieces_per_call_.load(std::memory_order_relaxed);
    const size_t most_bytes = std::min(most * vmi::kPageSize, kBytesPerCall);
    const size_t first = next;
    const size_t first_offset = offset;
    size_t bytes = 0;
    while (next < count && batch->pieces.size() < most && bytes < most_bytes) {
      const size_t part = std::min(pieces[next].length - offset, most_bytes - bytes);
      batch->pieces.push_back({pieces[next].address + offset, nullptr, part, 0});
      bytes += part;
      offset += part;
      if (offset < pieces[next].length) break;
      ++next;
      offset = 0;
    }
    batch->bytes.resize(bytes);
    uint8_t* into = batch->bytes.data();
    for (Piece& piece : batch->pieces) {
      piece.into = into;
      into += piece.length;
    }
    const auto start = std::chrono::steady_clock::now();
    vmi::Status status = session_->Run("vmi_read_pa", [batch, stale](Engine& engine) {
      return engine.Read(batch->pieces.data(), batch->pieces.size(), stale);
    });
    if (!status.ok()) return status;
    const auto taken = std::chrono::steady_clock::now() - start;
    if (taken > kLong) {
      pieces_per_call_.store(std::max<size_t>(most / 2, 1), std::memory_order_relaxed);
    } else if (taken < kShort && next < count) {
      pieces_per_call_.store(std::min(most * 2, kPiecesPerCall), std::memory_order_relaxed);
    }
    stale = false;
    for (size_t i = 0; i < batch->pieces.size(); ++i) {
      const Piece& part = batch->pieces[i];
      Piece& piece = pieces[first + i];
      const size_t at = i == 0 ? first_offset : 0;
      if (part.transferred > 0) memcpy(piece.into + at, part.into, part.transferred);
      piece.transferred += part.transferred;
      // The rest of a piece that ended early is not asked for.
      if (part.transferred < part.length && first + i == next && offset > 0) {
        ++next;
        offset = 0;
      }
    }
  }
  return {};
}

vmi::Status Source::Begin() {
  if (vmi::Status state = session_->State(); !state.ok()) return state;
  const auto flush = [](Engine& engine) { return engine.FlushCaches(); };
  vmi::Status status;
  if (session_->TryDirect(flush, &status)) return status;
  return session_->Run("vmi_*cache_flush", flush);
}

}  // namespace libvmi
