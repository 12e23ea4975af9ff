#include "core/result.h"

#include <cinttypes>
#include <cstdio>

namespace vmi {

std::string Hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%" PRIx64, value);
  return text;
}

}  // namespace vmi
