#include "source/libvmi/wire.h"

namespace libvmi::wire {

Writer& Writer::Put(const Value& value) {
  Put(value.kind).Put(value.number);
  return Put(value.text);
}

Writer& Writer::Put(const vmi::Status& status) {
  if (status.ok()) return Put(uint8_t{0});
  Put(static_cast<uint8_t>(1 + static_cast<uint8_t>(status.error().code)));
  return Put(status.error().message);
}

Value Reader::TakeValue() {
  Value value;
  value.kind = Take<Kind>();
  if (value.kind > Kind::kBytes) ok_ = false;
  value.number = Take<uint64_t>();
  value.text = Take<std::string>();
  return value;
}

vmi::Status Reader::TakeStatus() {
  const auto code = Take<uint8_t>();
  if (code == 0) return {};
  if (code > 1 + static_cast<uint8_t>(vmi::Code::kEventsTaken)) ok_ = false;
  return {static_cast<vmi::Code>(code - 1), Take<std::string>()};
}

size_t Reader::TakeCount() {
  const auto count = Take<uint32_t>();
  if (count > static_cast<size_t>(end_ - at_)) ok_ = false;
  return ok_ ? count : 0;
}

}  // namespace libvmi::wire
