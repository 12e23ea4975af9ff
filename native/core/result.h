// What a call that can fail gives back. Nothing in native/core throws.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace vmi {

// The codes of lib/errors.ts. kMisuse has none there: it becomes a RangeError.
enum class Code : uint8_t {
  kMisuse,
  kLibraryMissing,
  kAttach,
  kClosed,
  kBusy,
  kFault,
  kSymbol,
  kCorrupt,
  kUnsupported,
  kAborted,
  kCrashed,
  kEventsTaken,
};

// Where a read failed, and how far it came: the fields of NativeFault.
struct Fault {
  uint64_t address = 0;
  bool is_virtual = false;
  // Root of the page table that was walked; only with is_virtual.
  uint64_t cr3 = 0;
  uint64_t requested = 0;
  uint64_t transferred = 0;
  // Paging level whose entry was not present, 5 to 1; 0: the address is not in RAM.
  int level = 0;
  // With level 0: the address is in RAM, but not in the dump that is read.
  bool absent = false;
};

struct Error {
  Code code = Code::kMisuse;
  std::string message;
  Fault fault;           // kFault
  uint64_t address = 0;  // kCorrupt: the structure that breaks the invariant
  uint64_t found = 0;    // kCorrupt: rows read before it
  // kCrashed: how the process ended, and what it printed. Without a signal, `exit_status` counts.
  std::string signal;
  int exit_status = 0;
  std::string output;
};

// Formats a number the way every message does.
std::string Hex(uint64_t value);

// Success, or an error. As small as a pointer, so that success costs nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::make_unique<Error>(std::move(error))) {}
  Status(Code code, std::string message) {
    error_ = std::make_unique<Error>();
    error_->code = code;
    error_->message = std::move(message);
  }

  bool ok() const { return error_ == nullptr; }
  const Error& error() const { return *error_; }
  Error Take() { return std::move(*error_); }

 private:
  std::unique_ptr<Error> error_;
};

// A value, or an error.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Error error) : status_(std::move(error)) {}
  Result(Status status) : status_(std::move(status)) {}
  Result(Code code, std::string message) : status_(code, std::move(message)) {}

  bool ok() const { return status_.ok(); }
  const T& value() const& { return value_; }
  T& value() & { return value_; }
  T&& value() && { return std::move(value_); }
  const Error& error() const { return status_.error(); }
  Error TakeError() { return status_.Take(); }

 private:
  T value_{};
  Status status_;
};

}  // namespace vmi
