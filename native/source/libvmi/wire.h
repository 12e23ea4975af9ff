// What this process and libvmi's own process say to each other. Both are built together: no
// versions.
//
// A frame is its length (u32, without itself) and its bytes. A request starts with its Op; an
// answer with a byte that is 0, or 1 + vmi::Code and a message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/result.h"
#include "source/libvmi/engine.h"
#include "source/libvmi/lease.h"

namespace libvmi::wire {

enum class Op : uint8_t {
  kHello = 1,
  kAttach,
  kInvoke,
  kInitOs,
  kRead,
  kFlush,
  kStartCr3Writes,
  kListen,
  kStopCr3Writes,
  kEnd,
};

// A longer frame is no frame: vmi_read_pa by name reads at most 64 MiB.
constexpr size_t kMaxFrame = size_t{80} << 20;

// Memory that both have mapped, for vmi_read_pa: slots, then the bytes of all of them one after the
// other.
struct Slot {
  uint64_t address;
  uint32_t length;
  uint32_t transferred;
};
constexpr size_t kSlots = 1024;
constexpr size_t kSharedBytes = 256 * 1024;
// A page at the end is for the Lease.
constexpr size_t kLeaseAt = kSlots * sizeof(Slot) + kSharedBytes;
constexpr size_t kSharedSize = kLeaseAt + 4096;
// Descriptors of libvmi's process.
constexpr int kSocket = 3;
constexpr int kShared = 4;

inline Lease* LeaseIn(uint8_t* shared) { return reinterpret_cast<Lease*>(shared + kLeaseAt); }

class Writer {
 public:
  template <class T>
  Writer& Put(T value) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& Put(const std::string& text) {
    Put(static_cast<uint32_t>(text.size()));
    bytes_ += text;
    return *this;
  }
  Writer& Put(const Value& value);
  Writer& Put(const vmi::Status& status);

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what a Writer wrote; from a process that may be broken: everything is checked, and once
// something is missing all that follows is empty and ok() false.
class Reader {
 public:
  explicit Reader(const std::string& bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}

  bool ok() const { return ok_; }
  template <class T>
  T Take() {
    T value{};
    if constexpr (std::is_same_v<T, std::string>) {
      const auto length = Take<uint32_t>();
      if (length > static_cast<size_t>(end_ - at_)) {
        ok_ = false;
        return value;
      }
      value.assign(at_, length);
      at_ += length;
    } else if constexpr (std::is_same_v<T, bool>) {
      return Take<uint8_t>() != 0;
    } else {
      static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
      if (sizeof value > static_cast<size_t>(end_ - at_)) {
        ok_ = false;
        at_ = end_;
        return value;
      }
      std::memcpy(&value, at_, sizeof value);
      at_ += sizeof value;
    }
    return value;
  }
  Value TakeValue();
  vmi::Status TakeStatus();
  // For lists: the number of elements, no more than there are bytes left.
  size_t TakeCount();

 private:
  const char* at_;
  const char* end_;
  bool ok_ = true;
};

}  // namespace libvmi::wire
