// Several kernels in one memory: a warm reset, a kexec and a crash leave the old one in RAM, often
// whole. Which one runs, or ran last, is told by registers where there are some; what else tells is
// here, the strongest first.
import { wrap } from '../address.js';
import { VmiError } from '../errors.js';
import { type Clocked, wallClock, withMovingClock } from './clock.js';
import { KernelCpus } from './cpus.js';
import { tryAnswer } from './try-answer.js';
import { KERNEL_MAP, TEXT_ENTRY } from './x86-64.js';

/** A kernel that is in a guest's memory and was verified. */
export interface KernelInRam {
  /** Counted from 1, by where the kernels lie: what `attach({ kernel })` takes. */
  readonly number: number;
  /** As `uname -r` prints it. */
  readonly release: string;
  /** Physical address of its image. */
  readonly physical: bigint;
  /** What its clock shows, in seconds since 1970; `undefined`: it cannot be read. */
  readonly time: bigint | undefined;
  /** Whether its own memory says that it ended: `panicked on CPU 0`; `undefined`: it does not. */
  readonly ended: string | undefined;
  /** Whether it is the one that was attached. */
  readonly chosen: boolean;
}

/** What a choice is made from. */
export interface Choosable extends Clocked {
  readonly candidate: { readonly image: { readonly physical: bigint }; readonly source: string };
  readonly image: { readonly root: bigint; readonly pageOffset: bigint };
  readonly release: string;
}

/** Which kernel was taken, why, and what there was. */
export interface Choice<T> {
  readonly chosen: T;
  /** `undefined`: there was no other. */
  readonly why: string | undefined;
  readonly all: readonly KernelInRam[];
}

/**
 * Chooses among kernels that were verified.
 * @param wanted the number of one of them, where the user chose
 * @throws {VmiError} `VMI_ATTACH`: there is none of that number
 */
export async function chooseKernel<T extends Choosable>(
  given: readonly T[],
  wanted?: number,
): Promise<Choice<T> | undefined> {
  const kernels = [...given].sort((a, b) =>
    place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0,
  );
  if (kernels.length === 0) return undefined;
  if (wanted !== undefined) {
    const chosen = kernels[wanted - 1];
    if (chosen !== undefined) return choice(kernels, chosen, 'it was asked for');
    const all = listed(kernels, undefined);
    throw new VmiError(
      'VMI_ATTACH',
      `there is no kernel ${wanted} in this memory: ${kernelsText(all)}`,
    );
  }
  if (kernels.length === 1) return choice(kernels, kernels[0]!, undefined);
  const [chosen, why] = await running(kernels);
  return choice(kernels, chosen, why);
}

/** One line for people: each kernel with its number. */
export function kernelsText(all: readonly KernelInRam[]): string {
  return all
    .map(({ number, release, physical, time, ended }) => {
      const clock =
        time === undefined ? '' : `, its clock at ${new Date(Number(time) * 1000).toISOString()}`;
      const end = ended === undefined ? '' : `, ${ended}`;
      return `kernel ${number} is ${release} at 0x${physical.toString(16)}${clock}${end}`;
    })
    .join('; ');
}

const place = ({ candidate }: Choosable) => candidate.image.physical;

function choice<T extends Choosable>(
  kernels: readonly T[],
  chosen: T,
  why: string | undefined,
): Choice<T> {
  return { chosen, why, all: listed(kernels, chosen) };
}

function listed(kernels: readonly Choosable[], chosen: Choosable | undefined): KernelInRam[] {
  return kernels.map((kernel, at) => ({
    number: at + 1,
    release: kernel.release,
    physical: place(kernel),
    time: plausible(wallClock(kernel)),
    ended: endedBy(kernel),
    chosen: kernel === chosen,
  }));
}

/** A Date has no more than 8.64e15 milliseconds; no clock of a kernel shows as much. */
function plausible(time: bigint | undefined): bigint | undefined {
  return time !== undefined && time > 0n && time < 1n << 40n ? time : undefined;
}

/**
 * The kernel that runs, or ran last, and by what that is told. After a crash the CPUs that did not
 * crash are parked in the dead kernel, so that registers lead to both.
 */
async function running<T extends Choosable>(kernels: readonly T[]): Promise<[T, string]> {
  const mapped = kernels.filter(({ candidate }) => candidate.source === 'registers');
  if (mapped.length === 1) return [mapped[0]!, 'the page tables of the CPUs map it'];
  const all = mapped.length > 0 ? mapped : kernels;
  if (all[0]!.memory.physical.live) {
    const moving = await withMovingClock(all);
    if (moving.length === 1) return [moving[0]!, 'its clock moves'];
    if (moving.length > 1) return [newest(moving), 'its clock moves, and shows the latest time'];
  }
  const alive = all.filter((kernel) => endedBy(kernel) === undefined);
  if (alive.length === 1) return [alive[0]!, 'all others have ended'];
  const left = alive.length > 0 ? alive : all;
  const agreeing = left.filter(cpusAgree);
  if (agreeing.length === 1) return [agreeing[0]!, 'what its CPUs have loaded is still there'];
  return [newest(agreeing.length > 0 ? agreeing : left), 'its clock shows the latest time'];
}

function newest<T extends Choosable>(all: readonly T[]): T {
  const aged = all.map((kernel) => ({ kernel, time: wallClock(kernel) ?? -1n }));
  return aged.reduce((best, one) => (one.time > best.time ? one : best)).kernel;
}

/**
 * By what a kernel's memory says that it ended. kernel/panic.c: `panic_cpu` is -1 but in a panic or
 * a crash; kernel/reboot.c: `system_state` when it is shut down or starts another by kexec.
 */
function endedBy({ memory, symbols, types }: Clocked): string | undefined {
  return tryAnswer(() => {
    const panic = symbols.find('panic_cpu');
    const cpu = panic === undefined ? -1 : memory.readU32(panic) | 0;
    if (cpu >= 0) return `panicked on CPU ${cpu}`;
    const state = symbols.find('system_state');
    if (state === undefined) return undefined;
    const value = BigInt(memory.readU32(state));
    for (const name of ['SYSTEM_HALT', 'SYSTEM_POWER_OFF', 'SYSTEM_RESTART'])
      if (types.findConstant(name) === value) return `shut down (${name})`;
    return undefined;
  });
}

/** Whether what each CPU of a kernel has loaded is a page table that maps that kernel. */
function cpusAgree(kernel: Choosable): boolean {
  const { memory, symbols, types, image } = kernel;
  const agrees = tryAnswer(() => {
    const cpus = new KernelCpus(kernel);
    const at =
      symbols.address('cpu_tlbstate') + BigInt(types.findOffset('tlb_state', 'loaded_mm') ?? 0);
    const text = memory.physical.readU64(image.root + TEXT_ENTRY);
    const pgd = BigInt(types.offset('mm_struct', 'pgd'));
    return cpus.online().every((cpu) => {
      const mm = memory.readU64(wrap(at + cpus.perCpuOffset(cpu)));
      const table = memory.readU64(wrap(mm + pgd));
      const root = table >= KERNEL_MAP ? memory.translate(table) : wrap(table - image.pageOffset);
      return memory.physical.readU64(root + TEXT_ENTRY) === text;
    });
  });
  return agrees === true;
}
