import { wrap } from '../../address.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import { GuestWords, isPointer } from '../layout/guest-words.js';
import { PageDirectories } from '../layout/page-directories.js';
import { tryAnswer } from '../try-answer.js';
import type { TypeTable } from '../types/table.js';
import { COMM_LENGTH } from '../x86-64.js';
import { AREA_LENGTH } from './cpu-areas.js';

/** CPUs that are looked at. */
const CPUS = 8;
/** `cpu_tlbstate.loaded_mm` in the middle of a switch. arch/x86/include/asm/tlbflush.h. */
const LOADED_MM_SWITCHING = 1n;
/** Bits of `last_user_mm_spec` that are no part of the address. arch/x86/mm/tlb.c. */
const SPEC_BITS = 7n;
/** `TLB_NR_DYN_ASIDS`, and one more in the middle of a change; real ASIDs are below 4096. */
const MAX_NEXT_ASID = 7;
const MAX_ASID = 4095;
/** A pointer to a task is the first of a cache line. arch/x86/include/asm/current.h. */
const HOT_ALIGN = 64n;
const PAGE = 4096n;

/** One CPU's variables. */
export interface CpuBytes {
  readonly cpu: number;
  readonly bytes: Buffer;
}

/** What the CPUs' variables are searched with. */
export interface CpuSearch {
  readonly memory: VirtualMemory;
  readonly types: TypeTable;
  readonly initTask: bigint;
  /** Where symbols of the first byte of each CPU's variables are. */
  readonly start: bigint;
  /** Address of `this_cpu_off`, where each CPU has variables of its own. */
  readonly self?: bigint;
  readonly cpus: readonly CpuBytes[];
}

/** Variables of the first CPUs, from their start on. */
export function cpuBytes(
  memory: VirtualMemory,
  start: bigint,
  offsets: readonly bigint[],
): CpuBytes[] {
  const words = new GuestWords(memory);
  return offsets
    .slice(0, CPUS)
    .map((offset, cpu) => ({ cpu, bytes: words.atMost(wrap(start + offset), AREA_LENGTH) }));
}

/**
 * Finds `cpu_tlbstate` by its contents: an address space with a page directory of this kernel, the
 * one last used by a user behind it, and two small numbers (arch/x86/include/asm/tlbflush.h, never
 * shuffled).
 * @returns the address of `loaded_mm` in it; `undefined` where none or several come into question
 */
export function findLoadedMm(search: CpuSearch): bigint | undefined {
  const words = new GuestWords(search.memory);
  const directories = new PageDirectories(words);
  const pgd = tryAnswer(() => search.types.findOffset('mm_struct', 'pgd'));
  if (pgd === undefined) return undefined;
  const isLoaded = ({ bytes }: CpuBytes, at: number) => {
    const [mm, last] = [bytes.readBigUInt64LE(at), bytes.readBigUInt64LE(at + 8)];
    if (mm !== LOADED_MM_SWITCHING && !isPointer(mm)) return false;
    const [asid, next] = [bytes.readUInt16LE(at + 16), bytes.readUInt16LE(at + 18)];
    if (asid > MAX_ASID || next < 1 || next > MAX_NEXT_ASID) return false;
    if (last > SPEC_BITS && !isPointer(last & ~SPEC_BITS)) return false;
    return mm === LOADED_MM_SWITCHING || directories.has(words.u64(mm + BigInt(pgd)));
  };
  return only(search, 24, isLoaded);
}

/**
 * Finds what holds each CPU's current task: `current_task` of `pcpu_hot`, which the number of the
 * CPU and the end of the task's stack follow (6.2 to 6.14); what shares a cache line with
 * `this_cpu_off` (since 6.15, DEFINE_PER_CPU_CACHE_HOT); or `curr` of the run queue, which its idle
 * task and its `migration` thread follow.
 * @returns its address; `undefined` where none or several come into question
 */
export function findCurrentTask(search: CpuSearch): bigint | undefined {
  const tasks = new Tasks(search);
  const isHot = ({ cpu, bytes }: CpuBytes, at: number) => {
    if ((search.start + BigInt(at)) % HOT_ALIGN !== 0n) return false;
    if (bytes.readUInt32LE(at + 12) !== cpu || !tasks.has(bytes.readBigUInt64LE(at))) return false;
    const ends = [bytes.readBigUInt64LE(at + 16), bytes.readBigUInt64LE(at + 24)];
    return ends.some((end) => isPointer(end) && end % PAGE === 0n);
  };
  const isQueue = ({ cpu, bytes }: CpuBytes, at: number) => {
    if (!tasks.has(bytes.readBigUInt64LE(at))) return false;
    return [8, 16].some(
      (ahead) =>
        tasks.nameOf(bytes.readBigUInt64LE(at + ahead)) === `swapper/${cpu}` &&
        tasks.nameOf(bytes.readBigUInt64LE(at + ahead + 8)) === `migration/${cpu}`,
    );
  };
  const { self } = search;
  const isNear = ({ bytes }: CpuBytes, at: number) =>
    (search.start + BigInt(at)) / HOT_ALIGN === (self ?? 0n) / HOT_ALIGN &&
    tasks.has(bytes.readBigUInt64LE(at));
  return (
    only(search, 32, isHot) ??
    (search.start === 0n ? undefined : only(search, 8, isNear)) ??
    only(search, 32, isQueue)
  );
}

/** The only place that fits on every CPU, as the address of a symbol. */
function only(
  { cpus, start }: CpuSearch,
  size: number,
  fits: (cpu: CpuBytes, at: number) => boolean,
): bigint | undefined {
  const [first, ...others] = cpus;
  if (first === undefined) return undefined;
  const found: number[] = [];
  for (let at = 0; at + size <= first.bytes.length && found.length < 2; at += 8) {
    if (fits(first, at) && others.every((cpu) => fits(cpu, at))) found.push(at);
  }
  return found.length === 1 ? start + BigInt(found[0]!) : undefined;
}

/** Tells tasks of this kernel from all else, by their PID and the way back from it. */
class Tasks {
  readonly #words: GuestWords;
  readonly #types: TypeTable;
  readonly #initTask: bigint;
  readonly #known = new Map<bigint, boolean>();

  constructor({ memory, types, initTask }: CpuSearch) {
    this.#words = new GuestWords(memory);
    this.#types = types;
    this.#initTask = initTask;
  }

  has(address: bigint): boolean {
    if (!isPointer(address) || address % 64n !== 0n) return false;
    let known = this.#known.get(address);
    if (known === undefined) {
      known = address === this.#initTask || this.#isIdle(address) || this.#isNumbered(address);
      this.#known.set(address, known);
    }
    return known;
  }

  nameOf(address: bigint): string | undefined {
    const comm = this.#offset('task_struct', 'comm');
    if (comm === undefined || !isPointer(address)) return undefined;
    const bytes = this.#words.bytes(address + BigInt(comm), COMM_LENGTH);
    return bytes?.toString('latin1').split('\0', 1)[0];
  }

  #isIdle(address: bigint): boolean {
    const pid = this.#offset('task_struct', 'pid');
    if (pid === undefined || this.#words.u32(address + BigInt(pid)) !== 0) return false;
    return /^swapper\/\d+$/.test(this.nameOf(address) ?? '');
  }

  /** Whether the task's `struct pid` has its PID, and leads back to it. */
  #isNumbered(address: bigint): boolean {
    const offsets = [
      this.#offset('task_struct', 'pid'),
      this.#offset('task_struct', 'thread_pid'),
      this.#offset('task_struct', 'pid_links'),
      this.#offset('pid', 'numbers'),
      this.#offset('pid', 'tasks'),
    ];
    if (offsets.includes(undefined)) return false;
    const [pid, threadPid, links, numbers, tasks] = offsets.map((offset) => BigInt(offset!));
    const structPid = this.#words.u64(address + threadPid!);
    if (!isPointer(structPid)) return false;
    const number = this.#words.u32(address + pid!);
    if (number === undefined || number === 0) return false;
    if (this.#words.u32(structPid + numbers!) !== number) return false;
    return this.#words.u64(structPid + tasks!) === wrap(address + links!);
  }

  #offset(struct: string, member: string): number | undefined {
    return tryAnswer(() => this.#types.findOffset(struct, member));
  }
}
