// What libvmi's KVM driver for a QEMU without its patch must be kept from.
#pragma once

#include <string>

#include "source/libvmi/library.h"

namespace libvmi {

// Whether the guest still answers through libvmi: a page that is RAM in every PC is read, not from
// the cache. With a guest that has ended, the driver searches a null pointer for what QEMU's
// monitor did not say (kvm_get_vcpureg).
bool Answers(Mode mode, const Calls& calls, Instance instance);

// Whether the call asks the driver for a register, and so must find a guest that answers.
bool AsksRegister(const std::string& call);

// Why the call must not be made; empty when it may. The driver writes guest memory through a socket
// that only a patched QEMU gives it; without, it writes to descriptor 0 of this process and waits
// for an answer there (kvm_put_memory).
std::string Refusal(Mode mode, const Library& library, const std::string& call);

}  // namespace libvmi
