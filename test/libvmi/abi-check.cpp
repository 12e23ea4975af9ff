// Compiles the table of libvmi calls against libvmi's own headers; any difference is an error here.
// Run by abi.test.ts where the headers are installed: c++ -std=c++17 -fsyntax-only.
#include <libvmi/libvmi.h>
// After libvmi.h: events.h of 0.14 needs its types.
#include <libvmi/events.h>

#include <type_traits>

#include "abi.h"

namespace {

// Constness of what a pointer points to is not part of the binary interface, and neither is
// noexcept.
template <class T>
struct Plain {
  using Type = T;
};
template <class T>
struct Plain<const T*> {
  using Type = T*;
};
template <class T>
struct Signature;
template <class R, class... A>
struct Signature<R (*)(A...)> {
  using Type = typename Plain<R>::Type (*)(typename Plain<A>::Type...);
};
template <class R, class... A>
struct Signature<R (*)(A...) noexcept> {
  using Type = typename Plain<R>::Type (*)(typename Plain<A>::Type...);
};

// The table's type names, bound to libvmi's types.
namespace theirs {
using Status = ::status_t;
using Mode = ::vmi_mode_t;
using ConfigMode = ::vmi_config_t;
using InitError = ::vmi_init_error_t;
using Os = ::os_t;
using PageMode = ::page_mode_t;
using WindowsVersion = ::win_ver_t;
using Arch = ::vmi_arch_t;
using Address = ::addr_t;
using Register = ::reg_t;
using Pid = ::vmi_pid_t;
using Instance = ::vmi_instance_t;
using AccessContext = ::access_context_t;
using Event = ::vmi_event_t;
using EventFree = ::vmi_event_free_t;
#ifdef VMI_INIT_SHM  // 0.12
using InitData = void;
#else
using InitData = ::vmi_init_data_t;
#endif

#define CHECK_CALL(since, returns, name, parameters)                                              \
  static_assert(                                                                                  \
      std::is_same_v<Signature<decltype(&::name)>::Type, Signature<returns(*) parameters>::Type>, \
      "prototype of " #name);
#ifdef VMI_INIT_SHM
#define CHECK_SINCE_12(...) CHECK_CALL(__VA_ARGS__)
#define CHECK_SINCE_14(...)
#define CHECK_SINCE(since, returns, name, parameters) \
  CHECK_SINCE_##since(since, returns, name, parameters)
LIBVMI_CALLS(CHECK_SINCE)
#else
LIBVMI_CALLS(CHECK_CALL)
#endif
}  // namespace theirs

// The types bound in the addon, against libvmi's.
template <class T, bool = std::is_enum_v<T>>
struct Integer {
  using Type = std::underlying_type_t<T>;
};
template <class T>
struct Integer<T, false> {
  using Type = T;
};
#define CHECK_TYPE(name)                                                                  \
  static_assert(std::is_same_v<Integer<libvmi::name>::Type, Integer<theirs::name>::Type>, \
                "type of " #name);
CHECK_TYPE(Status)
CHECK_TYPE(Mode)
CHECK_TYPE(ConfigMode)
CHECK_TYPE(InitError)
CHECK_TYPE(Os)
CHECK_TYPE(PageMode)
CHECK_TYPE(WindowsVersion)
CHECK_TYPE(Arch)
CHECK_TYPE(Address)
CHECK_TYPE(Register)
CHECK_TYPE(Pid)
static_assert(sizeof(libvmi::Instance) == sizeof(theirs::Instance));

#define CHECK_CONSTANT(name, value) \
  static_assert(static_cast<uint64_t>(name) == (value), "value of " #name);
LIBVMI_REGISTERS(CHECK_CONSTANT)
LIBVMI_CONSTANTS(CHECK_CONSTANT)

#define CHECK_MEMBER(ours, member, their_member)                                              \
  static_assert(offsetof(libvmi::ours, member) == offsetof(::access_context_t, their_member), \
                "offset of access_context_t::" #their_member);
#ifdef ACCESS_CONTEXT_VERSION
// Layout V1 and this call came in one commit: the loader takes the one as the sign of the other.
using LayoutMarker = decltype(&::vmi_nested_pagetable_lookup);
static_assert(sizeof(libvmi::AccessContextV1) == sizeof(::access_context_t));
static_assert(libvmi::kAccessContextVersion == ACCESS_CONTEXT_VERSION);
CHECK_MEMBER(AccessContextV1, version, version)
CHECK_MEMBER(AccessContextV1, page_mode, page_mode)
CHECK_MEMBER(AccessContextV1, nested_page_mode, nested_page_mode)
CHECK_MEMBER(AccessContextV1, nested_page_table, nested_page_table)
CHECK_MEMBER(AccessContextV1, mechanism, translate_mechanism)
CHECK_MEMBER(AccessContextV1, address, addr)
CHECK_MEMBER(AccessContextV1, page_table_or_pid, dtb)
CHECK_MEMBER(AccessContextV1, page_table_or_pid, pid)
static_assert(libvmi::kMechanismPageTable == VMI_TM_PROCESS_DTB);
static_assert(libvmi::kMechanismPid == VMI_TM_PROCESS_PID);
static_assert(libvmi::kPageModeUnknown + 1 == VMI_PM_UNKNOWN);
static_assert(libvmi::kPageModeIa32e + 1 == VMI_PM_IA32E);
#else
static_assert(sizeof(libvmi::AccessContextV0) == sizeof(::access_context_t));
CHECK_MEMBER(AccessContextV0, mechanism, translate_mechanism)
CHECK_MEMBER(AccessContextV0, address, addr)
CHECK_MEMBER(AccessContextV0, symbol, ksym)
CHECK_MEMBER(AccessContextV0, page_table, dtb)
CHECK_MEMBER(AccessContextV0, pid, pid)
static_assert(libvmi::kMechanismPageTable + 1 == VMI_TM_PROCESS_DTB);
static_assert(libvmi::kMechanismPid + 1 == VMI_TM_PROCESS_PID);
static_assert(libvmi::kPageModeUnknown == VMI_PM_UNKNOWN);
static_assert(libvmi::kPageModeIa32e == VMI_PM_IA32E);
#endif

// vmi_events_version() returns this constant: the library tells which layout it has.
constexpr size_t kRegisterEvent = libvmi::RegisterEventOffset(VMI_EVENTS_VERSION);
static_assert(kRegisterEvent != 0, "a vmi_event_t of another version");
#define CHECK_EVENT(member, their_member)                                                     \
  static_assert(offsetof(libvmi::EventHead, member) == offsetof(::vmi_event_t, their_member), \
                "vmi_event_t::" #their_member);
#define CHECK_REGISTER_EVENT(member)                                        \
  static_assert(kRegisterEvent + offsetof(libvmi::RegisterEvent, member) == \
                    offsetof(::vmi_event_t, reg_event.member),              \
                "reg_event_t::" #member);
CHECK_EVENT(version, version)
CHECK_EVENT(type, type)
CHECK_EVENT(data, data)
CHECK_EVENT(callback, callback)
CHECK_EVENT(vcpu, vcpu_id)
CHECK_REGISTER_EVENT(reg)
CHECK_REGISTER_EVENT(async)
CHECK_REGISTER_EVENT(onchange)
CHECK_REGISTER_EVENT(in_access)
CHECK_REGISTER_EVENT(value)
CHECK_REGISTER_EVENT(previous)
static_assert(sizeof(::vmi_event_t) <= libvmi::kMaxEvent);
static_assert(libvmi::kEventRegister == VMI_EVENT_REGISTER);
static_assert(libvmi::kRegisterAccessWrite == VMI_REGACCESS_W);

}  // namespace
