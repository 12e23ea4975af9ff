// The links of a node of a list.
#pragma once

#include <cstdint>

namespace vmi {

// struct list_head. include/linux/types.h.
struct ListLink {
  uint64_t next = 0;
  uint64_t prev = 0;
};

}  // namespace vmi
