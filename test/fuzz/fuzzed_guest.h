// A guest of 128 KiB whose memory the fuzzer writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "fake_source.h"

namespace vmi::test {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }
  template <typename T>
  T Take() {
    T value{};
    const size_t part = std::min(size_, sizeof value);
    std::memcpy(&value, data_, part);
    data_ += part;
    size_ -= part;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

constexpr uint64_t kFuzzedSize = 0x20000;

// All of it in the direct map, by 4 KiB pages; its tables are in the first pages.
inline std::unique_ptr<DirectMapped> MakeFuzzedMachine() {
  return std::make_unique<DirectMapped>(kFuzzedSize);
}

// A write that has a chance to mean something: a pointer, a page-table entry, a few raw bytes.
inline void FuzzedWrite(Input* input, Guest* guest) {
  const auto kind = input->Take<uint8_t>();
  const auto where = input->Take<uint16_t>();
  const uint64_t at = uint64_t{where} * 8 % kFuzzedSize;
  switch (kind % 6) {
    case 0:
      guest->Put64(at, kDirectMap + uint64_t{input->Take<uint16_t>()} * 8);
      break;
    case 1: {
      // Entry: table or page, with flags in any bit.
      const uint64_t page = input->Take<uint8_t>() % 64;
      guest->Put64(at, page << 12 | (input->Take<uint8_t>() | 1));
      break;
    }
    case 2:
      guest->Put64(at, input->Take<uint64_t>());
      break;
    case 3:
      guest->Put64(at, 0);
      break;
    case 4:
      if (guest->bad_pages.size() < 8) guest->bad_pages.insert(at & ~kPageMask);
      break;
    case 5: {
      // list_head: both pointers.
      const uint64_t other = uint64_t{input->Take<uint16_t>()} * 8 % kFuzzedSize;
      if (at + 16 > kFuzzedSize || other + 16 > kFuzzedSize) break;
      guest->Put64(at, kDirectMap + other);
      guest->Put64(other + 8, kDirectMap + at);
      break;
    }
  }
}

#define FUZZ_CHECK(condition)           \
  do {                                  \
    if (!(condition)) __builtin_trap(); \
  } while (false)

}  // namespace vmi::test
