import type { Cr3WriteOptions, RawCr3Writes } from './cr3-writes.js';

/** Control registers of one vCPU, as the hypervisor holds them. */
export interface VcpuRegisters {
  readonly vcpu: number;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly rip: bigint;
  /** IA32_EFER; 0 where the source does not tell. */
  readonly efer: bigint;
}

export interface AbortOptions {
  readonly signal?: AbortSignal | undefined;
}

/** The side of a source that is not memory: the virtual machine's controls. */
export interface Machine {
  registers?(options?: AbortOptions): Promise<VcpuRegisters[]>;
  pause?(): Promise<void>;
  resume?(): Promise<void>;
  /** Writes to CR3 as they happen; a stream of its own each time. */
  cr3Writes?(options?: Cr3WriteOptions): RawCr3Writes;
  close(): Promise<void>;
}
