// The program that runs libvmi, and that controls Xen where libvmi cannot be trusted to.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace libvmi {

inline constexpr const char* kHostProgram = "libvmi_host";

// Path of the program, which stands beside the addon.
std::string HostProgram();

// Turns the events of a domain of Xen off, by a process that does only that. False when it cannot,
// or has not done it in time.
bool ReleaseDomain(uint32_t domain, std::chrono::milliseconds patience);

}  // namespace libvmi
