export type { AddressLike } from './address.js';
export {
  CorruptError,
  CrashError,
  type Fault,
  FaultError,
  hex,
  VmiError,
  type VmiErrorCode,
} from './errors.js';
export { Cr3Write, Cr3WriteStream } from './guest/cr3-writes.js';
export {
  type AttachOptions,
  attach,
  Guest,
  type GuestCpu,
  type SpaceOptions,
} from './guest/guest.js';
export { Pause } from './guest/pause.js';
export { Kernel, type KernelOptions } from './kernel/kernel.js';
export { loadProfile } from './kernel/profile/load-profile.js';
export type { Profile } from './kernel/profile/profile.js';
export type { Cr3WriteOptions } from './libvmi/cr3-writes.js';
export {
  type AbortOptions,
  type Capabilities,
  PhysicalMemory,
  type PhysicalRange,
  type VcpuRegisters,
} from './memory/physical-memory.js';
export {
  type Mapping,
  VirtualMemory,
  type WalkResult,
  type WalkStep,
} from './memory/virtual-memory.js';
export { formatTarget, parseTarget, type Target } from './target.js';
export { type TaskColumns, UNREADABLE } from './tasks/columns.js';
export { type Cr3Source, cr3Base } from './tasks/cr3.js';
export type { CrossRow, View } from './tasks/cross-view.js';
export { CR3_SOURCES } from './tasks/listing.js';
export { Task, type TaskField, type TaskJson } from './tasks/task.js';
export { type Consistency, type ListOptions, TaskList } from './tasks/tasks.js';
