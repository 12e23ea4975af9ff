/** All that a vCPU's general and control registers hold, as a debugger is told. */
export interface StubRegisters {
  /**
   * `rax` to `r15`, `rip`, `fsBase`, `gsBase`, `kernelGsBase`, `cr0`, `cr2`, `cr3`, `cr4`, `cr8`,
   * `efer`.
   */
  readonly [name: string]: bigint;
}

/** A vCPU wrote to a watched address, and the guest stands still. */
export interface StubHit {
  readonly vcpu: number;
  /** Virtual address of what is watched. */
  readonly address: bigint;
}

/**
 * A debugger's way into a guest, with hardware watchpoints. Opening it stops the guest, and so does
 * each hit; between them it runs. However it ends, the guest runs again and no watchpoint is left:
 * also when this process is killed.
 */
export interface DebugStub {
  /** Watchpoints that a processor has. */
  readonly limit: number;
  /** Watches writes to 4 or 8 bytes at a virtual address, on every vCPU. The guest stands still. */
  watch(address: bigint, length: 4 | 8): Promise<void>;
  unwatch(address: bigint): Promise<void>;
  /**
   * Lets the guest run until a watched address is written. @returns `undefined`: {@link interrupt}
   * was called
   */
  run(): Promise<StubHit | undefined>;
  /** Stops the guest and ends {@link run}. */
  interrupt(): void;
  /** Registers of a vCPU of the guest that stands still. */
  registers(vcpu: number): Promise<StubRegisters>;
  /**
   * Removes watchpoints and lets go of the stub. Idempotent.
   * @param stopped leaves the guest stopped: it is paused then, as by `pause()`, until it is
   * resumed
   */
  release(options?: { readonly stopped?: boolean }): Promise<void>;
}
