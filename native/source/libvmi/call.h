// libvmi's calls by name, with arguments and results as plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "source/libvmi/library.h"

namespace libvmi {

enum class Kind : uint8_t { kNull, kUnsigned, kSigned, kString, kBytes };

struct Value {
  Kind kind = Kind::kNull;
  uint64_t number = 0;  // kUnsigned; kSigned as two's complement
  std::string text;     // kString, kBytes
};

// What one argument must be.
struct Parameter {
  Kind kind;
  unsigned bits;   // of a number
  uint64_t limit;  // greatest value of an unsigned number
};

struct Outcome {
  // The call returned VMI_FAILURE, or null where a string was due, or success without having
  // written its result (vmi_get_offset does that with no OS layer).
  bool failed = false;
  // In the order of the prototype: results behind pointers first, then what the call returns.
  std::vector<Value> values;
};

struct Call {
  const char* name;
  std::vector<Parameter> parameters;
  bool (*available)(const Calls&);
  // `arguments` fit `parameters`. False when they contradict each other (a length beyond its
  // bytes).
  bool (*invoke)(const Library&, Instance, const std::vector<Value>& arguments, Outcome* outcome);
};

// Every call of LIBVMI_NEEDED_CALLS and LIBVMI_OPTIONAL_CALLS.
// A `const AccessContext*` is three arguments: mechanism (kMechanism…), page table or PID, base
// address. A buffer to fill is its length; its bytes and the length that libvmi reports come back.
const std::vector<Call>& AllCalls();
const Call* FindCall(const std::string& name);
// Whether libvmi_abi.h lists it at all.
bool IsListed(const std::string& name);

}  // namespace libvmi
