export type { AddressLike } from './address.js';
export { diagnose } from './discover/diagnosis.js';
export { fixEvents } from './discover/events.js';
export { findTarget } from './discover/find-target.js';
export type { Finding } from './discover/finding.js';
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
export { PROFILE_FORMATS, type ProfileFormat } from './export/profile.js';
export { type AttachOptions, type AttachTarget, attach } from './guest/attach.js';
export { Cr3Write, Cr3WriteStream } from './guest/cr3-writes.js';
export type { ExplainStep, Explanation } from './guest/explain.js';
export { Guest } from './guest/guest.js';
export type { GuestCpu } from './guest/guest-cpu.js';
export type { GuestMemory } from './guest/guest-memory.js';
export type { GuestStreams } from './guest/guest-streams.js';
export type { GuestValues } from './guest/guest-values.js';
export { Pause } from './guest/pause.js';
export { Recorder } from './guest/recorder.js';
export type { Pattern, SearchHit, SearchOptions } from './guest/search.js';
export type { SpaceOptions } from './guest/space.js';
export { type ProfileOptions, type TextSink, writeProfile } from './guest/write-profile.js';
export type { Fact } from './helpers/what-is.js';
export type { ImageCandidate } from './kernel/candidate.js';
export { type KernelInRam, kernelsText } from './kernel/choose.js';
export type { MappedImage } from './kernel/image.js';
export { Kernel, type Provenance } from './kernel/kernel.js';
export type { KernelImage } from './kernel/kernel-image.js';
export type { KernelOptions } from './kernel/kernel-options.js';
export { loadProfile } from './kernel/profile/load-profile.js';
export type { Profile } from './kernel/profile/profile.js';
export type { ListedSymbols } from './kernel/symbols/listed.js';
export type { KernelSymbol, SymbolPlace, SymbolTable } from './kernel/symbols/table.js';
export type { Member, StructType, TypeRef, TypeTable } from './kernel/types/table.js';
export type { Vmcoreinfo } from './kernel/vmcoreinfo.js';
export type { P2m } from './kernel/xen-p2m.js';
export type { Cr3WriteOptions, RawCr3Write, RawCr3Writes } from './memory/cr3-writes.js';
export {
  type MemoryControls,
  type MemoryOptions,
  openMemory,
  type ReadableMemory,
  type SegmentedMemory,
} from './memory/custom/open-memory.js';
export type {
  BufferSegment,
  FileSegment,
  MemorySegment,
  ProcessSegment,
  SegmentPlace,
} from './memory/custom/segments.js';
export type { StubRegisters } from './memory/debug-stub.js';
export type { HostProcess, XenEvents } from './memory/libvmi/xen-events.js';
export { type OpenOptions, openSource } from './memory/open.js';
export {
  type AbortOptions,
  type Addressing,
  type BatchResult,
  type Capabilities,
  type MachineLook,
  PhysicalMemory,
  type PhysicalRange,
  type RegisterOptions,
  type ScanOptions,
  type VcpuRegisters,
} from './memory/physical-memory.js';
export type { ReadMemory } from './memory/scripted/scripted-memory.js';
export type { Candidate, Opening, Source, Waiting } from './memory/source.js';
export {
  type Mapping,
  MappingList,
  type UnreadableMapping,
  VirtualMemory,
  type WalkResult,
  type WalkStep,
  type WriteOptions,
} from './memory/virtual-memory.js';
export { ClockTie } from './monitor/clock-tie.js';
export {
  Cr3Index,
  type Cr3IndexOptions,
  type Cr3Name,
  type Cr3Owner,
} from './monitor/cr3-index.js';
export { EventStream } from './monitor/event-stream.js';
export type { PauseWhenOptions, RunningAt } from './monitor/pause-when.js';
export { PolledStream } from './monitor/polled-stream.js';
export {
  type NamedWrite,
  type NamedWrites,
  type ReportedSwitch,
  ReportedSwitches,
  type ReportedSwitchJson,
  type ReportOptions,
  reportedSwitchJson,
} from './monitor/reported-switches.js';
export type { SampleOptions, SampleStatistics } from './monitor/sampled-switches.js';
export {
  RunningTask,
  type RunningTaskJson,
  type Switch,
  type SwitchJson,
  type SwitchSource,
  switchJson,
} from './monitor/switch.js';
export { type StreamOptions, SwitchStream } from './monitor/switch-stream.js';
export { type TaskUsage, type Usage, UsageMeter } from './monitor/task-usage.js';
export {
  type TaskEvent,
  type TaskFacts,
  TaskWatch,
  type TaskWatchOptions,
  taskEventJson,
} from './monitor/task-watch.js';
export { HtmlWriter } from './monitor/trace/html.js';
export { PerfettoWriter } from './monitor/trace/perfetto.js';
export { type Slice, Slices } from './monitor/trace/slices.js';
export { CsvWriter, JsonTraceWriter, NdjsonWriter } from './monitor/trace/text-writers.js';
export type { TraceHeader, TraceWriter } from './monitor/trace/writer.js';
export { type TrapOptions, TrappedSwitches } from './monitor/trapped-switches.js';
export type { WatchOptions } from './monitor/watch.js';
export { ArrayObject } from './objects/array.js';
export { EnumValue } from './objects/enum-value.js';
export type { FormatOptions } from './objects/format.js';
export { type KernelFacts, KernelObjects, type UserObjects } from './objects/kernel-objects.js';
export type { Bare, KernelStruct, ValueOf } from './objects/kernel-types.js';
export { Pointer } from './objects/pointer.js';
export type { Reference } from './objects/reference.js';
export { type Place, StructObject } from './objects/struct-object.js';
export { type Frame, frameText, Stack } from './stacks/frames.js';
export {
  formatTarget,
  type LibvmiTarget,
  parseTarget,
  TARGETS,
  type Target,
  type TargetForm,
} from './target.js';
export { type TaskColumns, UNREADABLE } from './tasks/columns.js';
export { type Cr3Source, cr3Base } from './tasks/cr3.js';
export { CrossList, type CrossRow, type View } from './tasks/cross-view.js';
export type { Consistency } from './tasks/listing.js';
export type { Misfit } from './tasks/salvage.js';
export { CR3_SOURCES } from './tasks/settle.js';
export { Task, type TaskField, type TaskJson } from './tasks/task.js';
export { TaskList } from './tasks/task-list.js';
export type { ListOptions } from './tasks/task-walk.js';
