#pragma once

#include <cstddef>
#include <cstdint>

// Every call of libvmi that keeps one binary interface in all releases from 0.12 on, and nothing
// else.
//
// libvmi's soname never changed while some of its structures, enumerations and prototypes did. A
// call is listed when no argument is a structure whose layout changed; constants are listed when
// their value did not. test/libvmi/abi-check.cpp compiles these tables against libvmi's own headers
// and fails on any difference.
namespace libvmi {

// Types of the tables. An enumeration of libvmi's is `unsigned int` in the System V ABI.
enum class Status : uint32_t { kSuccess = 0, kFailure = 1 };
enum class Mode : uint32_t { kXen = 0, kKvm = 1, kFile = 2 };
enum class ConfigMode : uint32_t { kGlobalFile = 0, kString = 1, kHashTable = 2, kJsonPath = 3 };
using InitError = uint32_t;       // vmi_init_error_t, renumbered in 0.14
using Os = uint32_t;              // os_t
using PageMode = uint32_t;        // page_mode_t
using WindowsVersion = uint32_t;  // win_ver_t
using Arch = uint32_t;            // vmi_arch_t
using Address = uint64_t;         // addr_t
using Register = uint64_t;        // reg_t
using Pid = int32_t;              // vmi_pid_t
using Instance = struct OpaqueInstance*;
// vmi_event_t, an EventHead and, further on, a RegisterEvent.
struct Event;
using EventFree = void (*)(Event*, Status);
// `void` before 0.14. Null in every call made here.
struct InitData;
// access_context_t, one of the two layouts below.
struct AccessContext;

// access_context_t until 0.14.
struct AccessContextV0 {
  uint32_t mechanism;
  Address address;
  const char* symbol;
  Address page_table;
  Pid pid;
};

// access_context_t since "Nested support" (2021-01-10), which also brought
// vmi_nested_pagetable_lookup: the library has this layout exactly when it has that symbol.
struct AccessContextV1 {
  uint32_t version;  // kAccessContextVersion
  uint32_t reserved;
  PageMode page_mode;
  PageMode nested_page_mode;
  Address nested_page_table;
  uint32_t mechanism;
  uint32_t reserved2;
  Address address;  // or const char* symbol
  Address page_table_or_pid;
};
inline constexpr uint32_t kAccessContextVersion = 1;

// translation_mechanism_t with V1. With V0 every value is one higher (VMI_TM_INVALID came first).
inline constexpr uint32_t kMechanismPageTable = 1;
inline constexpr uint32_t kMechanismPid = 2;

// The start of vmi_event_t, from events version 7 on.
struct EventHead {
  uint32_t version;
  uint16_t type;
  uint16_t slat;
  uint16_t next_slat;
  uint16_t reserved[3];
  void* data;
  uint32_t (*callback)(Instance, Event*);
  uint32_t vcpu;
};
// reg_event_t.
struct RegisterEvent {
  uint64_t reg;
  uint64_t equal;
  uint8_t async;
  uint8_t onchange;
  uint8_t in_access;
  uint8_t out_access;
  uint32_t reserved;
  uint64_t value;
  uint64_t previous;
};
inline constexpr uint16_t kEventRegister = 2;       // VMI_EVENT_REGISTER
inline constexpr uint8_t kRegisterAccessWrite = 4;  // VMI_REGACCESS_W
// No vmi_event_t is larger.
inline constexpr size_t kMaxEvent = 512;
// Where reg_event_t stands in vmi_event_t, by what vmi_events_version() says: 7 is libvmi 0.14, 8
// and 9 are from after it. 0: a layout that is not known here.
constexpr size_t RegisterEventOffset(uint32_t events_version) {
  return events_version == 7 || events_version == 8 ? 64 : events_version == 9 ? 40 : 0;
}

// page_mode_t with V0. With V1 every value is one higher (VMI_PM_NONE comes first).
inline constexpr PageMode kPageModeUnknown = 0;
inline constexpr PageMode kPageModeIa32e = 3;

}  // namespace libvmi

// X(since, returns, name, parameters). `since`: first release that has the call, times 100.
// Parameters point to const where libvmi only reads, whatever its own header says (0.12 leaves
// const out).

// Start and end of an instance. Called in native/source, not by name; needed.
#define LIBVMI_LIFE_CALLS(X)                                                               \
  X(12, Status, vmi_init, (Instance*, Mode, const void*, uint64_t, InitData*, InitError*)) \
  X(12, Status, vmi_destroy, (Instance))

// What takes a configuration. Called in native/source, not by name; may be absent.
#define LIBVMI_CONFIG_CALLS(X) X(12, Os, vmi_init_os, (Instance, ConfigMode, void*, InitError*))

// Events of events.h. Called in native/source, not by name; may be absent.
#define LIBVMI_EVENT_CALLS(X)                                   \
  X(12, uint32_t, vmi_events_version, ())                       \
  X(12, Status, vmi_register_event, (Instance, Event*))         \
  X(12, Status, vmi_clear_event, (Instance, Event*, EventFree)) \
  X(12, Status, vmi_events_listen, (Instance, uint32_t))

// The source cannot do without these either.
#define LIBVMI_NEEDED_CALLS(X)                                                   \
  X(12, Status, vmi_read_pa, (Instance, Address, size_t, void*, size_t*))        \
  X(12, uint64_t, vmi_get_memsize, (Instance))                                   \
  X(12, Address, vmi_get_max_physical_address, (Instance))                       \
  X(12, unsigned int, vmi_get_num_vcpus, (Instance))                             \
  X(12, Status, vmi_get_vcpureg, (Instance, uint64_t*, Register, unsigned long)) \
  X(12, Status, vmi_pause_vm, (Instance))                                        \
  X(12, Status, vmi_resume_vm, (Instance))                                       \
  X(12, void, vmi_v2pcache_flush, (Instance, Address))                           \
  X(12, void, vmi_symcache_flush, (Instance))                                    \
  X(12, void, vmi_pidcache_flush, (Instance))                                    \
  X(14, void, vmi_pagecache_flush, (Instance))

// A library without one of these lacks that capability.
#define LIBVMI_OPTIONAL_CALLS(X)                                                              \
  X(12, PageMode, vmi_init_paging, (Instance, uint64_t))                                      \
  X(12, Arch, vmi_get_library_arch, ())                                                       \
  X(12, Status, vmi_translate_kv2p, (Instance, Address, Address*))                            \
  X(12, Status, vmi_translate_uv2p, (Instance, Address, Pid, Address*))                       \
  X(12, Status, vmi_translate_ksym2v, (Instance, const char*, Address*))                      \
  X(12, Status, vmi_translate_sym2v, (Instance, const AccessContext*, const char*, Address*)) \
  X(12, const char*, vmi_translate_v2sym, (Instance, const AccessContext*, Address))          \
  X(12, const char*, vmi_translate_v2ksym, (Instance, const AccessContext*, Address))         \
  X(12, Status, vmi_pid_to_dtb, (Instance, Pid, Address*))                                    \
  X(12, Status, vmi_dtb_to_pid, (Instance, Address, Pid*))                                    \
  X(12, Status, vmi_pagetable_lookup, (Instance, Address, Address, Address*))                 \
  X(12, Status, vmi_read_ksym, (Instance, const char*, size_t, void*, size_t*))               \
  X(12, Status, vmi_read_va, (Instance, Address, Pid, size_t, void*, size_t*))                \
  X(12, Status, vmi_read_8_ksym, (Instance, const char*, uint8_t*))                           \
  X(12, Status, vmi_read_16_ksym, (Instance, const char*, uint16_t*))                         \
  X(12, Status, vmi_read_32_ksym, (Instance, const char*, uint32_t*))                         \
  X(12, Status, vmi_read_64_ksym, (Instance, const char*, uint64_t*))                         \
  X(12, Status, vmi_read_addr_ksym, (Instance, const char*, Address*))                        \
  X(12, Status, vmi_read_8_va, (Instance, Address, Pid, uint8_t*))                            \
  X(12, Status, vmi_read_16_va, (Instance, Address, Pid, uint16_t*))                          \
  X(12, Status, vmi_read_32_va, (Instance, Address, Pid, uint32_t*))                          \
  X(12, Status, vmi_read_64_va, (Instance, Address, Pid, uint64_t*))                          \
  X(12, Status, vmi_read_addr_va, (Instance, Address, Pid, Address*))                         \
  X(12, Status, vmi_read_8_pa, (Instance, Address, uint8_t*))                                 \
  X(12, Status, vmi_read_16_pa, (Instance, Address, uint16_t*))                               \
  X(12, Status, vmi_read_32_pa, (Instance, Address, uint32_t*))                               \
  X(12, Status, vmi_read_64_pa, (Instance, Address, uint64_t*))                               \
  X(12, Status, vmi_read_addr_pa, (Instance, Address, Address*))                              \
  X(12, Status, vmi_write_ksym, (Instance, const char*, size_t, const void*, size_t*))        \
  X(12, Status, vmi_write_va, (Instance, Address, Pid, size_t, const void*, size_t*))         \
  X(12, Status, vmi_write_pa, (Instance, Address, size_t, const void*, size_t*))              \
  X(12, Status, vmi_write_8_ksym, (Instance, const char*, const uint8_t*))                    \
  X(12, Status, vmi_write_16_ksym, (Instance, const char*, const uint16_t*))                  \
  X(12, Status, vmi_write_32_ksym, (Instance, const char*, const uint32_t*))                  \
  X(12, Status, vmi_write_64_ksym, (Instance, const char*, const uint64_t*))                  \
  X(12, Status, vmi_write_addr_ksym, (Instance, const char*, const Address*))                 \
  X(12, Status, vmi_write_8_va, (Instance, Address, Pid, const uint8_t*))                     \
  X(12, Status, vmi_write_16_va, (Instance, Address, Pid, const uint16_t*))                   \
  X(12, Status, vmi_write_32_va, (Instance, Address, Pid, const uint32_t*))                   \
  X(12, Status, vmi_write_64_va, (Instance, Address, Pid, const uint64_t*))                   \
  X(12, Status, vmi_write_addr_va, (Instance, Address, Pid, const Address*))                  \
  X(12, Status, vmi_write_8_pa, (Instance, Address, const uint8_t*))                          \
  X(12, Status, vmi_write_16_pa, (Instance, Address, const uint16_t*))                        \
  X(12, Status, vmi_write_32_pa, (Instance, Address, const uint32_t*))                        \
  X(12, Status, vmi_write_64_pa, (Instance, Address, const uint64_t*))                        \
  X(12, Status, vmi_write_addr_pa, (Instance, Address, const Address*))                       \
  X(12, char*, vmi_get_name, (Instance))                                                      \
  X(12, uint64_t, vmi_get_vmid, (Instance))                                                   \
  X(12, PageMode, vmi_get_page_mode, (Instance, unsigned long))                               \
  X(12, uint8_t, vmi_get_address_width, (Instance))                                           \
  X(12, Os, vmi_get_ostype, (Instance))                                                       \
  X(12, WindowsVersion, vmi_get_winver, (Instance))                                           \
  X(12, const char*, vmi_get_winver_str, (Instance))                                          \
  X(14, uint16_t, vmi_get_win_buildnumber, (Instance))                                        \
  X(12, WindowsVersion, vmi_get_winver_manual, (Instance, Address))                           \
  X(12, Status, vmi_get_offset, (Instance, const char*, Address*))                            \
  X(12, Status, vmi_get_kernel_struct_offset, (Instance, const char*, const char*, Address*)) \
  X(12, Status, vmi_set_vcpureg, (Instance, uint64_t, Register, unsigned long))               \
  X(14, Status, vmi_request_page_fault, (Instance, unsigned long, uint64_t, uint32_t))        \
  X(14, Status, vmi_get_tsc_info, (Instance, uint32_t*, uint64_t*, uint32_t*, uint32_t*))     \
  X(12, void, vmi_v2pcache_add, (Instance, Address, Address, Address))                        \
  X(12, void, vmi_symcache_add, (Instance, Address, Pid, const char*, Address))               \
  X(12, void, vmi_rvacache_flush, (Instance))                                                 \
  X(12, void, vmi_rvacache_add, (Instance, Address, Pid, Address, const char*))               \
  X(12, void, vmi_pidcache_add, (Instance, Pid, Address))                                     \
  X(12, const char*, vmi_get_linux_sysmap, (Instance))                                        \
  X(12, const char*, vmi_get_freebsd_sysmap, (Instance))                                      \
  X(12, const char*, vmi_get_rekall_path, (Instance))                                         \
  X(14, const char*, vmi_get_os_profile_path, (Instance))

#define LIBVMI_CALLS(X) \
  LIBVMI_LIFE_CALLS(X)  \
  LIBVMI_CONFIG_CALLS(X) LIBVMI_EVENT_CALLS(X) LIBVMI_NEEDED_CALLS(X) LIBVMI_OPTIONAL_CALLS(X)

// X(name, value). Registers are libvmi's own numbers (not the SDM's).
// clang-format would indent each line by one entry more.
// clang-format off
#define LIBVMI_REGISTERS(X) \
  X(RAX, 0) X(RBX, 1) X(RCX, 2) X(RDX, 3) X(RBP, 4) X(RSI, 5) X(RDI, 6) X(RSP, 7) X(RIP, 8) \
  X(RFLAGS, 9) X(R8, 10) X(R9, 11) X(R10, 12) X(R11, 13) X(R12, 14) X(R13, 15) X(R14, 16) \
  X(R15, 17) X(CR0, 18) X(CR2, 19) X(CR3, 20) X(CR4, 21) X(XCR0, 22) X(DR0, 23) X(DR1, 24) \
  X(DR2, 25) X(DR3, 26) X(DR6, 27) X(DR7, 28) X(CS_SEL, 29) X(DS_SEL, 30) X(ES_SEL, 31) \
  X(FS_SEL, 32) X(GS_SEL, 33) X(SS_SEL, 34) X(TR_SEL, 35) X(LDTR_SEL, 36) X(CS_LIMIT, 37) \
  X(DS_LIMIT, 38) X(ES_LIMIT, 39) X(FS_LIMIT, 40) X(GS_LIMIT, 41) X(SS_LIMIT, 42) \
  X(TR_LIMIT, 43) X(LDTR_LIMIT, 44) X(IDTR_LIMIT, 45) X(GDTR_LIMIT, 46) X(CS_BASE, 47) \
  X(DS_BASE, 48) X(ES_BASE, 49) X(FS_BASE, 50) X(GS_BASE, 51) X(SS_BASE, 52) X(TR_BASE, 53) \
  X(LDTR_BASE, 54) X(IDTR_BASE, 55) X(GDTR_BASE, 56) X(CS_ARBYTES, 57) X(DS_ARBYTES, 58) \
  X(ES_ARBYTES, 59) X(FS_ARBYTES, 60) X(GS_ARBYTES, 61) X(SS_ARBYTES, 62) X(TR_ARBYTES, 63) \
  X(LDTR_ARBYTES, 64) X(SYSENTER_CS, 65) X(SYSENTER_ESP, 66) X(SYSENTER_EIP, 67) \
  X(SHADOW_GS, 68) X(TSC, 69) X(MSR_FLAGS, 70) X(MSR_LSTAR, 71) X(MSR_CSTAR, 72) \
  X(MSR_SYSCALL_MASK, 73) X(MSR_EFER, 74) X(MSR_TSC_AUX, 75) X(MSR_STAR, 119) \
  X(MSR_SHADOW_GS_BASE, 120)
// clang-format on

// X(name, value). Constants that kept their value.
// clang-format off
#define LIBVMI_CONSTANTS(X) \
  X(VMI_INIT_DOMAINNAME, 1) X(VMI_INIT_DOMAINID, 2) X(VMI_INIT_EVENTS, 4) X(VMI_SUCCESS, 0) \
  X(VMI_FAILURE, 1) X(VMI_XEN, 0) X(VMI_KVM, 1) X(VMI_FILE, 2) \
  X(VMI_CONFIG_GLOBAL_FILE_ENTRY, 0) X(VMI_CONFIG_STRING, 1) X(VMI_CONFIG_GHASHTABLE, 2) \
  X(VMI_OS_UNKNOWN, 0) X(VMI_OS_LINUX, 1) X(VMI_OS_WINDOWS, 2) X(VMI_OS_FREEBSD, 3) \
  X(VMI_PM_INITFLAG_TRANSITION_PAGES, 1)
// clang-format on
