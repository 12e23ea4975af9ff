// Scans find what a search byte by byte finds, however memory is read.
#include "core/scan/scan.h"
#include "fuzzed_guest.h"

using namespace vmi;
using namespace vmi::test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto guest = std::make_shared<Guest>(Range{0x1000, 0x2000}, Range{0x5000, 0x1000});
  const auto options = input.Take<uint8_t>();
  guest->is_mapped = (options & 1) != 0;
  if ((options & 2) != 0) guest->bad_pages.insert(0x2000);
  ScanRequest request;
  request.stride = (options & 4) != 0 ? 1 : input.Take<uint16_t>();
  request.offsets.clear();
  for (int i = options >> 4 & 3; i >= 0; --i)
    request.offsets.push_back(request.stride == 1 ? 0 : input.Take<uint16_t>());
  request.start = input.Take<uint16_t>();
  request.last = request.start + input.Take<uint16_t>();
  request.max = 1 + input.Take<uint8_t>();
  // Seldom: starting a thread takes longer than the scan.
  request.threads = options >> 6 == 3 ? 2 : 1;
  guest->is_parallel = true;
  request.pattern.resize(input.Take<uint8_t>() % 40);
  for (uint8_t& byte : request.pattern) byte = input.Take<uint8_t>();
  while (!input.empty()) {
    const size_t at = input.Take<uint16_t>() % guest->bytes.size();
    // A byte, or the pattern, whole or in part.
    const auto count = input.Take<uint8_t>();
    for (size_t i = 0; i < count && i < request.pattern.size() && at + i < guest->bytes.size();
         ++i) {
      guest->bytes[at + i] = request.pattern[i];
    }
  }
  auto memory = Open(guest);
  const auto hits = Scan(memory.get(), request, [] { return false; });
  if (!hits.ok()) {
    FUZZ_CHECK(hits.error().code == Code::kMisuse);
    return 0;
  }
  std::vector<uint64_t> expected;
  for (const Range& range : guest->ranges) {
    for (uint64_t at = range.start; at - range.start + request.pattern.size() <= range.length;
         ++at) {
      if (at < request.start || at + (request.pattern.size() - 1) > request.last ||
          expected.size() == request.max)
        continue;
      bool wanted = false;
      for (const uint64_t offset : request.offsets)
        wanted = wanted || at % request.stride == offset;
      for (size_t i = 0; i < request.pattern.size() && wanted; ++i) {
        wanted = guest->bad_pages.count((at + i) & ~kPageMask) == 0 &&
                 *guest->At(at + i) == request.pattern[i];
      }
      if (wanted) expected.push_back(at);
    }
  }
  FUZZ_CHECK(hits.value() == expected);
  return 0;
}
