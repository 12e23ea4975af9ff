#include "core/lookup/radix_tree.h"

#include <cstring>

#include <string>

namespace vmi {

namespace {

// The byte at `shift_offset` and the first 64 slots: what one read of a node brings.
constexpr uint32_t kMaxNode = 1024;

Error Corrupt(uint64_t address, const std::string& message) {
  Error error;
  error.code = Code::kCorrupt;
  error.message = message;
  error.address = address;
  return error;
}

}  // namespace

Result<uint64_t> LookUp(AddressSpace* space, const RadixTree& tree, uint64_t head, uint64_t index) {
  Status status = space->memory()->Check();
  if (!status.ok()) return status;
  space->memory()->Refresh();
  uint64_t entry = 0;
  status = space->ReadExact(head, reinterpret_cast<uint8_t*>(&entry), sizeof entry);
  if (!status.ok()) return status;
  // Without nodes it holds index 0 only.
  if (!tree.IsNode(entry)) return index == 0 ? entry : 0;

  const uint64_t slot_mask = (uint64_t{1} << tree.chunk_shift) - 1;
  const uint64_t top = entry - tree.tag;
  uint8_t node[kMaxNode];
  // Copied memory: the whole node in one read.
  const uint64_t node_length = tree.slots_offset + (slot_mask + 1) * sizeof entry;
  int level;
  const bool whole =
      !space->memory()->mapped() && tree.shift_offset < node_length && node_length <= sizeof node &&
      space->Copy(top, node, static_cast<size_t>(node_length), &level) == node_length;
  uint8_t shift_byte = 0;
  if (whole) {
    shift_byte = node[tree.shift_offset];
  } else {
    status = space->ReadExact(top + tree.shift_offset, &shift_byte, sizeof shift_byte);
    if (!status.ok()) return status;
  }
  // Levels follow each other without a gap: the top one's shift tells those of the others.
  uint32_t shift = shift_byte;
  if (shift > tree.max_shift || shift % tree.chunk_shift != 0) {
    return Corrupt(top, "the top node of the tree at " + Hex(head) + " has the shift " +
                            std::to_string(shift));
  }
  if (shift + tree.chunk_shift < 64 && index >> (shift + tree.chunk_shift) != 0) return uint64_t{0};
  while (true) {
    const uint64_t at = tree.slots_offset + (index >> shift & slot_mask) * sizeof entry;
    if (whole && entry - tree.tag == top) {
      std::memcpy(&entry, node + at, sizeof entry);
    } else {
      status =
          space->ReadExact(entry - tree.tag + at, reinterpret_cast<uint8_t*>(&entry), sizeof entry);
      if (!status.ok()) return status;
    }
    if (shift == 0) return entry;
    if (!tree.IsNode(entry)) break;
    shift -= tree.chunk_shift;
  }
  if (entry == 0 || (entry & tree.tag_mask) != 0) return entry;
  return Corrupt(head, "the tree at " + Hex(head) + " holds " + Hex(entry) + " above the slot of " +
                           std::to_string(index));
}

}  // namespace vmi
