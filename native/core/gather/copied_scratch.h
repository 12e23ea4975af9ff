// What a gather from copied memory needs for itself, kept for the next one: memory that is new from
// the host costs a page fault each 4 KiB, as much as some ten rows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/helper_thread.h"
#include "core/physical_source.h"

namespace vmi {

struct CopiedScratch {
  static constexpr uint32_t kNone = UINT32_MAX;

  // What of a group lies in one page.
  struct Piece {
    uint64_t physical = 0;
    uint32_t row = 0;
    uint32_t length = 0;
    uint16_t group = 0;
    uint16_t offset = 0;  // in the group
    // The next piece of the same request.
    uint32_t next = kNone;
  };
  // An element of the batch: all that is wanted of one page, and the bytes between. To copy a page
  // takes less time than a second element.
  struct Request {
    uint64_t physical = 0;
    uint32_t length = 0;
    uint32_t first_piece = kNone;
  };
  // A group of a row that is the same as in the row before it.
  struct Repeat {
    uint32_t row;
    uint32_t group;
  };
  // What one thread uses.
  struct Lane {
    std::vector<Piece> pieces;
    std::vector<Request> requests;
    std::vector<Repeat> repeats;
    // Numbers of requests by page: open addressing.
    std::vector<uint32_t> slots;
    std::vector<ReadRequest> reads;
    std::vector<uint8_t> buffer;
    // Numbers of the rows that take a page table, which only the owner's thread may use.
    std::vector<uint32_t> unfilled;
  };

  std::array<Lane, HelperThread::kThreads> lanes;
};

}  // namespace vmi
