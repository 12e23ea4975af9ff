import { type AddressLike, toAddress, toLength } from '../address.js';
import { VmiError } from '../errors.js';
import type { P2m } from '../kernel/xen-p2m.js';
import { VirtualMemory, type WalkResult, type WriteOptions } from '../memory/virtual-memory.js';
import { checkFlag, checkOptions } from '../options.js';
import { GuestStreams } from './guest-streams.js';
import { checkSpace, type SpaceOptions } from './space.js';

/** The side of a guest that is its memory: bytes, and where they are. */
export abstract class GuestMemory extends GuestStreams {
  abstract readonly target: string;
  abstract pidToCr3(pid: number): bigint | null;

  /** Runs one question to the guest, if it still is what was attached. */
  protected abstract ask<T>(question: () => T): T;

  /**
   * A copy of guest-virtual memory, through the kernel's page table or a process's.
   * @throws {FaultError} the first address that is not mapped
   */
  read(address: AddressLike, length: number, space: SpaceOptions = {}): Buffer {
    return this.ask(() => this.#space(space).read(address, length));
  }

  /**
   * A copy of physical memory; of a PV guest of Xen, at machine addresses. @throws {FaultError} the
   * first address that is not RAM
   */
  readPhysical(address: AddressLike, length: number): Buffer {
    return this.ask(() => {
      this.memory.begin();
      return this.memory.read(address, toLength(length));
    });
  }

  /** Writes guest-virtual memory; throws as {@link VirtualMemory.write}. */
  write(address: AddressLike, bytes: Uint8Array, options: SpaceOptions & WriteOptions = {}): void {
    const { readOnly, ...space } = checkOptions(options, { pid: true, cr3: true, readOnly: true });
    checkFlag(readOnly, 'readOnly');
    this.ask(() => this.#space(space).write(address, bytes, { readOnly }));
  }

  /** Writes physical memory; throws as {@link PhysicalMemory.write}. */
  writePhysical(address: AddressLike, bytes: Uint8Array): void {
    this.ask(() => {
      this.memory.begin();
      this.memory.write(address, bytes);
    });
  }

  /** A NUL-terminated string of at most `max` bytes. @throws {FaultError} not mapped */
  readString(address: AddressLike, max?: number, space: SpaceOptions = {}): string {
    return this.ask(() => this.#space(space).readString(address, max));
  }

  /**
   * Machine address of what a PV guest of Xen calls physical (pseudo-physical), by the guest's own
   * list of its frames.
   * @returns `undefined` where the guest has no frame of its own
   * @throws {VmiError} `VMI_UNSUPPORTED`: the guest is none, or its source does not know machine
   *   addresses
   */
  toMachine(physical: AddressLike): bigint | undefined {
    return this.#frames().toMachine(toAddress(physical));
  }

  /**
   * What a PV guest of Xen calls the physical address of a machine address. Looks through the
   * guest's list of frames.
   * @returns `undefined` when the machine's frame is none of this guest's
   * @throws {VmiError} `VMI_UNSUPPORTED` as {@link toMachine}; {@link CorruptError}: the list is
   *   broken
   */
  toPhysical(machine: AddressLike): bigint | undefined {
    return this.#frames().toPhysical(toAddress(machine));
  }

  /**
   * Physical address of a virtual one; in a PV guest of Xen, the machine's.
   * @throws {FaultError} with the level that was not present
   */
  translate(address: AddressLike, space: SpaceOptions = {}): bigint {
    return this.ask(() => this.#space(space).translate(address));
  }

  /**
   * Every level of the page walk for an address, and where it ends; in a PV guest of Xen, at
   * machine addresses. An address that is not mapped is an answer, not an error.
   */
  walk(address: AddressLike, space: SpaceOptions = {}): WalkResult {
    return this.ask(() => this.#space(space).walk(address));
  }

  #frames(): P2m {
    const { p2m } = this.kernel;
    if (p2m === undefined) {
      throw new VmiError(
        'VMI_UNSUPPORTED',
        `${this.target} is no PV guest of Xen: its page tables hold the addresses that it calls physical, and where those are in the machine only the hypervisor knows`,
      );
    }
    this.kernel.memory.begin();
    return p2m;
  }

  #space(options: SpaceOptions): VirtualMemory {
    const { pid, cr3 } = checkSpace(options);
    let space = this.kernel.memory;
    if (pid !== undefined || cr3 !== undefined) {
      const root = cr3 === undefined ? this.pidToCr3(pid!) : this.cr3Base(cr3);
      if (root === null) {
        throw new VmiError(
          'VMI_UNSUPPORTED',
          `task ${pid} has no address space of its own; leave pid out to use the kernel's`,
        );
      }
      space = new VirtualMemory(this.memory, root, this.kernel.levels);
    }
    space.begin();
    return space;
  }
}
