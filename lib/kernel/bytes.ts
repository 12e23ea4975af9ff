/**
 * Anything that reads bytes by address: a `VirtualMemory`, or guest RAM while no page table is
 * known yet.
 */
export interface ByteReader {
  /** Reads a copy; throws a `FaultError` when not all of it can be read. */
  read(address: bigint, length: number): Buffer;
}

/** A range of addresses, end exclusive. */
export interface AddressRange {
  readonly start: bigint;
  readonly end: bigint;
}
