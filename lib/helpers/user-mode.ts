import { wrap } from '../address.js';
import { VmiError } from '../errors.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import type { StructObject } from '../objects/struct-object.js';

/** THREAD_SIZE without KASAN. arch/x86/include/asm/page_64_types.h. */
const THREAD_SIZE = 16_384;
/**
 * `struct pt_regs`, in its order, 8 bytes each: arch/x86/include/asm/ptrace.h, the kernel's ABI.
 */
const PT_REGS = [
  'r15',
  'r14',
  'r13',
  'r12',
  'rbp',
  'rbx',
  'r11',
  'r10',
  'r9',
  'r8',
  'rax',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'orig_rax',
  'rip',
  'cs',
  'eflags',
  'rsp',
  'ss',
] as const;
/**
 * Bytes between `pt_regs` and the end of a stack, where the kernel may enter by FRED:
 * arch/x86/include/asm/thread_info.h, TOP_OF_KERNEL_STACK_PADDING, since commit 65c9cc9e2c14 (6.9).
 */
const FRED_PADDING = 16;
/** Lowest two bits of a selector: privilege. */
const USER_MODE = 3n;
/** Code segment of 32-bit programs: arch/x86/include/asm/segment.h, __USER32_CS. */
const USER32_CS = 0x23n;
/** How often registers are read anew when the task runs in between. */
const RETRIES = 8;

/** A register of user mode, as ptrace names it. */
export type UserRegisterName =
  | (typeof PT_REGS)[number]
  | 'ds'
  | 'es'
  | 'fs'
  | 'gs'
  | 'fs_base'
  | 'gs_base';

/** What a task has in its registers when it goes on in user mode. */
export interface UserRegisters extends Readonly<Record<UserRegisterName, bigint>> {
  /** Whether it runs 32-bit code, so that the upper halves mean nothing. */
  readonly compat: boolean;
}

/**
 * Registers of user mode of a task off the CPU, as the kernel saved them when it was entered: what
 * `PTRACE_GETREGS` tells, but for `rax`, which holds -ENOSYS while a call waits (its number is in
 * `orig_rax`). All of one moment: they are read anew where the task ran in between.
 *
 * Source: arch/x86/include/asm/processor.h, task_pt_regs; `struct pt_regs`, `struct thread_struct {
 * unsigned long fsbase, gsbase; unsigned short es, ds, fsindex, gsindex; }`.
 * @param task `struct task_struct`
 * @throws {VmiError} `VMI_UNSUPPORTED`: it runs, has exited, or has no user mode
 * @throws {FaultError}
 */
export function userRegisters(objects: KernelObjects, task: StructObject): UserRegisters {
  for (let tries = 0; tries < RETRIES; tries++) {
    const before = switches(task);
    if (isRunning(objects, task))
      throw without(task, "runs: what is in its registers, only its CPU's registers say");
    const registers = savedRegisters(objects, task);
    if (!isRunning(objects, task) && switches(task) === before) return registers;
  }
  throw without(task, 'ran each time its registers were read');
}

/**
 * What the kernel told a program when it started it, in pairs of a number and a value (`AT_PHDR`,
 * `AT_ENTRY`, …), the last pair included: `/proc/PID/auxv`. `null` for a task without an address
 * space.
 *
 * Source: fs/proc/base.c, auxv_read; `unsigned long mm_struct.saved_auxv[]`.
 * @param compat whether it is a 32-bit program, whose pairs are of 4-byte words
 */
export function auxv(task: StructObject, compat = false): Buffer | null {
  const mm = task.mm as StructObject | null;
  if (mm === null) return null;
  const bytes = mm.$member('saved_auxv').bytes();
  const pair = compat ? 8 : 16;
  for (let at = 0; at + pair <= bytes.length; at += pair) {
    const key = compat ? BigInt(bytes.readUInt32LE(at)) : bytes.readBigUInt64LE(at);
    if (key === 0n) return bytes.subarray(0, at + pair);
  }
  return bytes;
}

/** Times the task was switched away from; it does not change while the task is off the CPU. */
function switches(task: StructObject): bigint {
  return (task.nvcsw as bigint) + (task.nivcsw as bigint);
}

/** A kernel for one CPU has no `on_cpu`: there it is the CPU's current task. */
function isRunning(objects: KernelObjects, task: StructObject): boolean {
  if (task.$has('on_cpu')) return BigInt(task.on_cpu as number) !== 0n;
  return objects.variable('current_task', 'struct task_struct *')?.$address === task.$address;
}

function savedRegisters(objects: KernelObjects, task: StructObject): UserRegisters {
  const stack = task.$member('stack').address;
  const { memory } = objects;
  memory.begin();
  const bottom = memory.readU64(stack);
  if (bottom === 0n) throw without(task, 'has exited');
  const end = wrap(bottom + BigInt(objects.types.findSize('thread_union') ?? THREAD_SIZE));
  const padding = objects.has('asm_fred_entrypoint_user') ? FRED_PADDING : 0;
  const words = memory.read(wrap(end - BigInt(padding + PT_REGS.length * 8)), PT_REGS.length * 8);
  const saved = Object.fromEntries(
    PT_REGS.map((name, i) => [name, words.readBigUInt64LE(i * 8)]),
  ) as Record<(typeof PT_REGS)[number], bigint>;
  // FRED keeps more than the selectors in their words.
  const cs = saved.cs & 0xffffn;
  const ss = saved.ss & 0xffffn;
  if ((cs & USER_MODE) !== USER_MODE || (ss & USER_MODE) !== USER_MODE)
    throw without(task, 'has no user mode: a thread of the kernel, or one that it made for itself');
  const thread = task.thread as StructObject;
  return {
    ...saved,
    cs,
    ss,
    ds: BigInt(thread.ds as number),
    es: BigInt(thread.es as number),
    fs: BigInt(thread.fsindex as number),
    gs: BigInt(thread.gsindex as number),
    fs_base: thread.fsbase as bigint,
    gs_base: thread.gsbase as bigint,
    compat: cs === USER32_CS,
  };
}

function without(task: StructObject, why: string): VmiError {
  return new VmiError('VMI_UNSUPPORTED', `${task.$path} (${task.pid}) ${why}`);
}
