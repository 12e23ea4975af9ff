// What AddressSpace.finder of types/addon.d.ts makes.
#pragma once

#include <cstdint>
#include <memory>

#include <napi.h>

#include "core/gather/plan.h"
#include "core/lookup/radix_tree.h"
#include "addon/open_space.h"

namespace vmi {

// `tree` of AddressSpace.lookUp.
RadixTree ToTree(const Napi::Value& value);

// An object { find, row }: a function that carries all it needs, and the bytes it fills.
Napi::Value MakeFinder(Napi::Env env, const std::shared_ptr<OpenSpace>& open, const RadixTree& tree,
                       uint64_t head, const Plan& plan);

}  // namespace vmi
