export type { AddressLike } from './address.js';
export { diagnose, type Finding } from './discover/diagnosis.js';
export { type ListedGuest, listGuests } from './discover/list-guests.js';
export {
  ChangedError,
  CorruptError,
  CrashError,
  type Fault,
  FaultError,
  hex,
  VmiError,
  type VmiErrorCode,
} from './errors.js';
export { libvmiKernel } from './export/libvmi-kernel.js';
export { kaslrOffset } from './export/linked.js';
export { PROFILE_FORMATS, type ProfileFormat } from './export/profile.js';
export { type AttachOptions, attach } from './guest/attach.js';
export { Cr3Write, Cr3WriteStream } from './guest/cr3-writes.js';
export type { ExplainStep, Explanation } from './guest/explain.js';
export { Guest } from './guest/guest.js';
export type { GuestCpu } from './guest/guest-cpu.js';
export { Pause } from './guest/pause.js';
export type { SpaceOptions } from './guest/space.js';
export { type ProfileOptions, type TextSink, writeProfile } from './guest/write-profile.js';
export { Kernel, type KernelOptions } from './kernel/kernel.js';
export { loadProfile } from './kernel/profile/load-profile.js';
export type { Profile } from './kernel/profile/profile.js';
export type { SymbolPlace } from './kernel/symbols/table.js';
export type { StructType } from './kernel/types/table.js';
export type { Cr3WriteOptions } from './memory/cr3-writes.js';
export { type OpenOptions, openSource } from './memory/open.js';
export {
  type AbortOptions,
  type Capabilities,
  PhysicalMemory,
  type PhysicalRange,
  type VcpuRegisters,
} from './memory/physical-memory.js';
export type { Candidate, Source } from './memory/source.js';
export {
  type Mapping,
  VirtualMemory,
  type WalkResult,
  type WalkStep,
} from './memory/virtual-memory.js';
export { ClockTie } from './monitor/clock-tie.js';
export type { SampleOptions, SampleStatistics } from './monitor/sampled-switches.js';
export {
  RunningTask,
  type RunningTaskJson,
  type Switch,
  type SwitchJson,
  type SwitchSource,
  switchJson,
} from './monitor/switch.js';
export { SwitchStream } from './monitor/switch-stream.js';
export type { WatchOptions } from './monitor/watch.js';
export { ArrayObject } from './objects/array.js';
export { EnumValue } from './objects/enum-value.js';
export type { FormatOptions } from './objects/format.js';
export { KernelObjects } from './objects/kernel-objects.js';
export type { KernelStruct, ValueOf } from './objects/kernel-types.js';
export { Pointer } from './objects/pointer.js';
export type { Reference } from './objects/reference.js';
export { type Place, StructObject } from './objects/struct-object.js';
export { type Frame, frameText, Stack } from './stacks/frames.js';
export { formatTarget, parseTarget, type Target } from './target.js';
export { type TaskColumns, UNREADABLE } from './tasks/columns.js';
export { type Cr3Source, cr3Base } from './tasks/cr3.js';
export type { CrossRow, View } from './tasks/cross-view.js';
export type { Consistency } from './tasks/listing.js';
export { CR3_SOURCES } from './tasks/settle.js';
export { Task, type TaskField, type TaskJson } from './tasks/task.js';
export { TaskList } from './tasks/task-list.js';
export type { ListOptions } from './tasks/task-walk.js';
