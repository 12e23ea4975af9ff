// Guest-physical memory as libvmi reads it: vmi_read_pa, nothing else.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/physical_source.h"
#include "source/libvmi/session.h"

namespace libvmi {

// A run of RAM and the address by which libvmi knows it. They differ in one case: libvmi's file
// driver takes an offset into the file for a physical address, and in the RAM file of a PC all
// above 4 GiB is stored where the hole below it starts.
struct Segment {
  uint64_t physical = 0;
  uint64_t length = 0;
  uint64_t libvmi_address = 0;
};

class Source final : public vmi::PhysicalSource {
 public:
  // kMisuse unless the segments are page-aligned, ascending and without overlap.
  static vmi::Result<std::unique_ptr<vmi::PhysicalSource>> Create(std::shared_ptr<Session> session,
                                                                  std::vector<Segment> segments);

  const std::vector<vmi::Range>& ranges() const override { return ranges_; }
  bool mapped() const override { return false; }
  vmi::Status Read(vmi::ReadRequest* requests, size_t count) override;
  // Empties libvmi's page, V2P, PID and symbol caches: a page it has read once stays as it was.
  vmi::Status Begin() override;
  // The next Read empties the page cache first: it has to ask libvmi anyway.
  void Refresh() override { stale_.store(true, std::memory_order_relaxed); }
  // A process of libvmi that ended is started again by the next operation.
  // What has ended for good, the session itself goes on to say. A monitor that did not answer once
  // may answer again.
  bool recovers() const override { return true; }
  // The session has an owner of its own.
  void Close() override {}

 private:
  Source(std::shared_ptr<Session> session, std::vector<Segment> segments);
  const Segment* Find(uint64_t physical) const;
  vmi::Status ReadPieces(Piece* pieces, size_t count);
  vmi::Status ReadQueued(Piece* pieces, size_t count, bool stale);
  bool TakeStale() {
    return stale_.load(std::memory_order_relaxed) &&
           stale_.exchange(false, std::memory_order_relaxed);
  }

  const std::shared_ptr<Session> session_;
  const std::vector<Segment> segments_;
  std::vector<vmi::Range> ranges_;
  // How much one queued call may read; found out, because drivers differ a thousandfold and hosts
  // tenfold.
  std::atomic<size_t> pieces_per_call_{16};
  std::atomic<bool> stale_{false};
};

}  // namespace libvmi
