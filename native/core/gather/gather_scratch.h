// What a gather from memory that is read needs for itself, kept for the next one: see
// list_scratch.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/helper_thread.h"
#include "core/physical_source.h"

namespace vmi {

struct GatherScratch {
  static constexpr uint32_t kNone = UINT32_MAX;
  // Rows that a thread fills at once, and elements that it reads at once: then it takes them apart
  // while they are in its cache.
  static constexpr size_t kBlock = 128;
  // Where one batch for more is better: the source reads a page once, whoever asks for it.
  static constexpr size_t kSerialBlock = 1024;

  // What of a window lies in one page.
  struct Piece {
    uint64_t physical = 0;
    uint32_t row = 0;
    uint32_t length = 0;
    uint16_t window = 0;
    uint16_t offset = 0;  // in the window
    // Of the same request.
    uint32_t next = kNone;
  };
  // An element of the batch: what is wanted of one page, and all between. A second element takes
  // longer than to copy a page.
  struct Request {
    uint64_t physical = 0;
    uint32_t length = 0;
    uint32_t first_piece = kNone;
  };
  // A row that gets what the row before it got.
  struct Repeat {
    uint32_t row;
    uint32_t window;
  };
  // Of one thread.
  struct Lane {
    std::vector<Piece> pieces;
    std::vector<Request> requests;
    std::vector<Repeat> repeats;
    // Numbers of requests by page: open addressing.
    std::vector<uint32_t> slots;
    std::vector<ReadRequest> reads;
    std::vector<uint8_t> buffer;
    // Rows that it could not fill.
    std::vector<uint32_t> left;
  };

  std::array<Lane, HelperThread::kThreads> lanes;
};

}  // namespace vmi
