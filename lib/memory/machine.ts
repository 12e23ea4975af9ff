import type { Cr3WriteOptions, RawCr3Writes } from './cr3-writes.js';
import type { DebugStub } from './debug-stub.js';
import type { VcpuRegisters } from './registers.js';

export type { VcpuRegisters } from './registers.js';

/** What a source can do beyond reading. */
export interface Capabilities {
  /** vCPU registers can be read. */
  readonly registers: boolean;
  /** The guest can be stopped and resumed. */
  readonly pause: boolean;
  /** Guest memory can be written: it was attached with `write`. */
  readonly write: boolean;
  /** Register events can be awaited. */
  readonly events: boolean;
  /** RAM is mapped: reads cost no system call. */
  readonly map: boolean;
}

/** What everything takes that may be ended before it is done. */
export interface AbortOptions {
  /** Ends it with `VMI_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/** How registers are asked for. */
export interface RegisterOptions extends AbortOptions {
  /**
   * Whether all are wanted that the source has, where each is a question of its own (libvmi);
   * default false: those that a kernel is found by.
   */
  readonly all?: boolean | undefined;
}

/** What the hypervisor says of a guest at one moment. */
export interface MachineLook {
  /** Whether RAM is laid out as it was when it was attached. */
  readonly sameRam: boolean;
  /** `undefined`: they cannot be told. */
  readonly registers?: readonly VcpuRegisters[] | undefined;
  /** Whether the vCPUs run; `undefined`: it cannot be told. */
  readonly running?: boolean | undefined;
}

/** The side of a source that is not memory: the virtual machine's controls. */
export interface Machine {
  registers?(options?: RegisterOptions): Promise<VcpuRegisters[]>;
  pause?(): Promise<void>;
  resume?(): Promise<void>;
  /** Writes to CR3 as they happen; a stream of its own each time. */
  cr3Writes?(options?: Cr3WriteOptions): RawCr3Writes;
  /** A debugger's way into the guest, which stops it. */
  debugStub?(): Promise<DebugStub>;
  close(): Promise<void>;
}
