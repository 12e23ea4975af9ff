#include "source/libvmi/kvm.h"

namespace libvmi {

bool Answers(Mode mode, const Calls& calls, Instance instance) {
  if (mode != Mode::kKvm || instance == nullptr) return true;
  // What is in the cache says nothing about now.
  calls.vmi_pagecache_flush(instance);
  uint64_t bytes = 0;
  size_t transferred = 0;
  return calls.vmi_read_pa(instance, 0, sizeof(bytes), &bytes, &transferred) == Status::kSuccess &&
         transferred == sizeof(bytes);
}

bool AsksRegister(const std::string& call) {
  return call == "vmi_get_vcpureg" || call == "vmi_init_paging";
}

std::string Refusal(Mode mode, const Library& library, const std::string& call) {
  if (mode != Mode::kKvm || !library.legacy_kvm() || call.rfind("vmi_write_", 0) != 0) return {};
  return "libvmi's KVM driver cannot write the memory of a QEMU without its patch";
}

}  // namespace libvmi
