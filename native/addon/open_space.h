// What an AddressSpace object wraps: a page table, and what works on it.
#pragma once

#include <memory>
#include <utility>

#include "core/gather/gatherer.h"
#include "core/lookup/look_ups.h"
#include "core/paging/address_space.h"

namespace vmi {

struct OpenSpace {
  explicit OpenSpace(std::unique_ptr<AddressSpace> address_space)
      : space(std::move(address_space)), gatherer(space.get()), look_ups(&gatherer) {}

  // Forgets translations, and ends a look-up.
  void Flush() {
    space->Flush();
    look_ups.End();
  }

  // Keeps the memory alive.
  const std::unique_ptr<AddressSpace> space;
  Gatherer gatherer;
  LookUps look_ups;
};

}  // namespace vmi
