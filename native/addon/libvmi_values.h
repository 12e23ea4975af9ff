// What libvmi's calls take and give, out of JavaScript values and into them.
#pragma once

#include <cstdint>
#include <string>

#include <napi.h>

#include "source/libvmi/call.h"
#include "source/libvmi/config.h"
#include "source/libvmi/engine.h"
#include "source/libvmi/session.h"

namespace vmi {

// Text without a zero byte.
std::string ToText(const Napi::Value& value, const char* name);
// A boolean; `undefined` is false.
bool ToFlag(const Napi::Value& value, const char* name);
// Milliseconds of a day at most.
libvmi::Duration ToDeadline(const Napi::Value& value);
// The number of a call that is under way, as JavaScript has it.
int64_t ToTicket(const Napi::Value& value);
// One argument of a call, as its prototype wants it.
libvmi::Value ToArgument(const Napi::Value& from, const libvmi::Parameter& parameter,
                         const std::string& name);
// `options` of new Libvmi(): which domain.
libvmi::Domain ToDomain(const Napi::Object& options);
// `kind` and `value` of Libvmi.initOs().
libvmi::Config ToConfig(const Napi::Value& kind_value, const Napi::Value& value);

// A NativeLibvmiOutcome.
Napi::Value FromOutcome(Napi::Env env, const libvmi::Outcome& outcome, const std::string& log);

}  // namespace vmi
