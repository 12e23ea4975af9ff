#include "libvmi_source.h"

#include <string.h>

#include <algorithm>
#include <utility>

#include "libvmi_kvm.h"

namespace libvmi {
namespace {

// The most one queued call may read. The slowest driver known (KVM without its patches: every page is text
// from QEMU's monitor, 2.5 MB/s) then needs a tenth of a second, far from any sensible deadline.
constexpr size_t kBytesPerCall = 256 * 1024;
constexpr size_t kRequestsPerCall = 1024;

// Reads `length` bytes; returns those before the first that libvmi cannot read.
size_t ReadPhysical(const Calls& calls, Instance instance, const std::vector<Segment>& segments, uint64_t physical,
                    uint8_t* into, size_t length) {
  size_t done = 0;
  while (done < length) {
    const uint64_t address = physical + done;
    const Segment* segment = nullptr;
    for (const Segment& candidate : segments) {
      if (address - candidate.physical < candidate.length) segment = &candidate;
    }
    if (segment == nullptr) return done;
    const uint64_t offset = address - segment->physical;
    const size_t part = static_cast<size_t>(std::min<uint64_t>(length - done, segment->length - offset));
    size_t transferred = 0;
    const Status status =
        calls.vmi_read_pa(instance, segment->libvmi_address + offset, part, into + done, &transferred);
    // libvmi reports success for a short read too; a report of more than was asked for proves nothing.
    if (transferred > part) transferred = 0;
    done += transferred;
    if (status != Status::kSuccess || transferred < part) return done;
  }
  return done;
}

}  // namespace

Source::Source(std::shared_ptr<Session> session, std::vector<Segment> segments)
    : session_(std::move(session)), segments_(std::make_shared<const std::vector<Segment>>(std::move(segments))) {
  for (const Segment& segment : *segments_) {
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
    const bool aligned = ((segment.physical | segment.length | segment.libvmi_address) & vmi::kPageMask) == 0;
    if (!aligned || segment.length == 0 || segment.physical < end ||
        segment.physical + segment.length < segment.physical) {
      return {vmi::Code::kMisuse, "segments must be page-aligned, ascending and without overlap"};
    }
    end = segment.physical + segment.length;
  }
  return std::unique_ptr<vmi::PhysicalSource>(new Source(std::move(session), std::move(segments)));
}

vmi::Status Source::Read(vmi::ReadRequest* requests, size_t count) {
  const bool done = session_->TryDirect([&](const Calls& calls, Instance instance) {
    for (size_t i = 0; i < count; ++i) {
      vmi::ReadRequest& request = requests[i];
      request.transferred =
          ReadPhysical(calls, instance, *segments_, request.physical, request.into, request.length);
    }
  });
  return done ? vmi::Status() : ReadQueued(requests, count);
}

vmi::Status Source::ReadQueued(vmi::ReadRequest* requests, size_t count) {
  // The queued call fills memory of its own: it may return long after its caller gave up.
  struct Batch {
    std::vector<vmi::ReadRequest> requests;
    std::vector<uint8_t> bytes;
    bool attached = false;
  };
  for (size_t i = 0; i < count; ++i) requests[i].transferred = 0;
  size_t next = 0;
  size_t offset = 0;  // in requests[next]
  while (next < count) {
    auto batch = std::make_shared<Batch>();
    const size_t first = next;
    const size_t first_offset = offset;
    size_t bytes = 0;
    while (next < count && batch->requests.size() < kRequestsPerCall && bytes < kBytesPerCall) {
      const size_t part = std::min(requests[next].length - offset, kBytesPerCall - bytes);
      batch->requests.push_back({requests[next].physical + offset, nullptr, part});
      bytes += part;
      offset += part;
      if (offset < requests[next].length) break;
      ++next;
      offset = 0;
    }
    batch->bytes.resize(bytes);
    vmi::Status status =
        session_->Run("vmi_read_pa", [batch, segments = segments_](const Calls& calls, Instance instance) {
          batch->attached = instance != nullptr;
          if (!batch->attached) return;
          uint8_t* into = batch->bytes.data();
          for (vmi::ReadRequest& request : batch->requests) {
            request.transferred =
                ReadPhysical(calls, instance, *segments, request.physical, into, request.length);
            into += request.length;
          }
        });
    if (!status.ok()) return status;
    if (!batch->attached) return {vmi::Code::kAttach, "this libvmi instance is not attached"};
    const uint8_t* from = batch->bytes.data();
    for (size_t i = 0; i < batch->requests.size(); ++i) {
      const vmi::ReadRequest& part = batch->requests[i];
      vmi::ReadRequest& request = requests[first + i];
      const size_t at = i == 0 ? first_offset : 0;
      if (part.transferred > 0) memcpy(request.into + at, from, part.transferred);
      request.transferred += part.transferred;
      from += part.length;
      // The rest of a request that ended early is not asked for.
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
  const auto flush = [](const Calls& calls, Instance instance) {
    if (instance == nullptr) return;
    calls.vmi_pagecache_flush(instance);
    // Any single table's address would flush nothing.
    calls.vmi_v2pcache_flush(instance, ~uint64_t{0});
    calls.vmi_pidcache_flush(instance);
    calls.vmi_symcache_flush(instance);
  };
  if (!session_->TryDirect(flush)) {
    if (vmi::Status status = session_->Run("vmi_*cache_flush", flush); !status.ok()) return status;
  }
  if (session_->options().mode != Mode::kKvm) return {};
  // Shared, because the queued work may outlive this call.
  auto answers = std::make_shared<bool>(false);
  const auto look = [answers, &options = session_->options()](const Calls& calls, Instance instance) {
    *answers = Answers(options, calls, instance);
  };
  if (!session_->TryDirect(look)) {
    if (vmi::Status status = session_->Run("vmi_read_pa", look); !status.ok()) return status;
  }
  if (!*answers) return {vmi::Code::kClosed, "libvirt's guest does not answer any more: it has ended"};
  return {};
}

}  // namespace libvmi
