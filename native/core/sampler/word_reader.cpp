#include "core/sampler/word_reader.h"

#include <algorithm>

#include "core/bus_guard.h"

namespace vmi {

namespace {

// Acquire loads keep their order among themselves; on x86 they are plain ones.
void LoadWords(uint8_t* into, const uint8_t* from, size_t length) {
  if ((reinterpret_cast<uintptr_t>(from) | length) % 8 == 0) {
    for (size_t at = 0; at < length; at += 8) {
      const uint64_t word =
          __atomic_load_n(reinterpret_cast<const uint64_t*>(from + at), __ATOMIC_ACQUIRE);
      std::copy_n(reinterpret_cast<const uint8_t*>(&word), 8, into + at);
    }
    return;
  }
  for (size_t at = 0; at < length; at += 4) {
    const uint32_t word =
        __atomic_load_n(reinterpret_cast<const uint32_t*>(from + at), __ATOMIC_ACQUIRE);
    std::copy_n(reinterpret_cast<const uint8_t*>(&word), 4, into + at);
  }
}

}  // namespace

bool WordReader::Load(const WordRead* reads, size_t count) {
  const uint8_t* direct[kMaxBatch];
  for (size_t i = 0; i < count; ++i) {
    direct[i] = memory_->Direct(reads[i].physical, reads[i].length);
    if (direct[i] == nullptr) return false;
  }
  return WithBusGuard([&] {
    for (size_t i = 0; i < count; ++i)
      LoadWords(static_cast<uint8_t*>(reads[i].into), direct[i], reads[i].length);
  });
}

bool WordReader::Read(const WordRead* reads, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if ((reads[i].physical | reads[i].length) % 4 != 0) return false;
  }
  // A page of mapped memory that is not known to hold data yet is copied, as a hole is.
  if (memory_->mapped() && Load(reads, count)) return true;
  ReadRequest requests[kMaxBatch];
  for (size_t i = 0; i < count; ++i)
    requests[i] = {reads[i].physical, static_cast<uint8_t*>(reads[i].into), reads[i].length, 0};
  memory_->CopyBlock(requests, count);
  return std::all_of(requests, requests + count,
                     [](const ReadRequest& one) { return one.transferred == one.length; });
}

}  // namespace vmi
