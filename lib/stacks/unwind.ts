import { wrap } from '../address.js';
import { FaultError, hex, VmiError } from '../errors.js';
import type { VcpuRegisters } from '../memory/registers.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { Stack } from './frames.js';
import { ModuleMap } from './module-map.js';
import { type FlagBits, flagBits, type OrcEntry, type OrcTable, readOrc } from './orc.js';

/** Frames of a stack at most: 16 KiB hold 1,024 of the smallest. */
const MAX_FRAMES = 1024;
/** THREAD_SIZE without KASAN. arch/x86/include/asm/page_64_types.h. */
const THREAD_SIZE = 16_384;
/** Bytes of a stack that are read at once: most sleeping tasks use less than 1 KiB. */
const FIRST_READ = 2048;
/**
 * `struct pt_regs`: offsets of bp, ip, cs and sp. arch/x86/include/asm/ptrace.h, the kernel's ABI
 * since 2.6.
 */
const REGS = { bp: 32, ip: 128, cs: 136, sp: 152 } as const;
/** Lowest two bits of cs: privilege. */
const USER_MODE = 3n;
/** A frame that keeps a frame pointer: unwind_orc.c, orc_fp_entry. */
const FRAME_POINTER: OrcEntry = {
  type: 'call',
  spReg: 'bp',
  spOffset: 16,
  bpReg: 'previous-sp',
  bpOffset: -16,
  signal: false,
};

interface State {
  ip: bigint;
  sp: bigint;
  bp: bigint;
  signal: boolean;
  guessed: boolean;
}

/**
 * Kernel stacks of tasks, by the kernel's own ORC tables. Made once a kernel: the tables take some
 * MiB.
 */
export class Unwinder {
  readonly #memory: VirtualMemory;
  readonly #bits: FlagBits | undefined;
  readonly #orc: OrcTable | undefined;
  readonly #modules: ModuleMap;
  readonly #text: { readonly start: bigint; readonly end: bigint };
  readonly #forks: readonly (bigint | undefined)[];
  readonly #offsets: { readonly stack: bigint; readonly sp: bigint; readonly onCpu: bigint };
  readonly #frame: { readonly size: bigint; readonly bp: bigint; readonly ip: bigint };
  readonly #stackSize: number;
  /** Where `on_cpu` is read to: an int, since 7.x a byte among others. */
  readonly #onCpu: Buffer;

  constructor(objects: KernelObjects) {
    this.#memory = objects.memory;
    const { symbols, types } = objects;
    const task = (member: string) => BigInt(types.offset('task_struct', member));
    const running = types.struct('task_struct').member('on_cpu');
    this.#offsets = { stack: task('stack'), sp: task('thread.sp'), onCpu: task('on_cpu') };
    this.#onCpu = Buffer.alloc(running.size);
    const saved = types.struct('inactive_task_frame');
    this.#frame = {
      size: BigInt(saved.size),
      bp: BigInt(saved.member('bp').offset),
      ip: BigInt(saved.member('ret_addr').offset),
    };
    this.#stackSize = types.findSize('thread_union') ?? THREAD_SIZE;
    this.#text = { start: symbols.address('_stext'), end: symbols.address('_etext') };
    // Named ret_from_fork_asm since commit 3aec4ecb3d1f (6.6).
    this.#forks = [symbols.find('ret_from_fork'), symbols.find('ret_from_fork_asm')];
    this.#bits = types.find('orc_entry') === undefined ? undefined : flagBits(objects);
    this.#orc = this.#bits === undefined ? undefined : readOrc(objects, this.#bits);
    this.#modules = new ModuleMap(objects, this.#bits, this.#orc?.registers);
  }

  /**
   * The functions that a task off the CPU is in, the innermost first; the scheduler's own are left
   * in.
   *
   * @param task address of a `task_struct`
   * @throws {VmiError} `VMI_UNSUPPORTED`: the task runs, or has exited and has no stack
   * @throws {FaultError} no `task_struct`
   */
  stack(task: bigint): Stack {
    const memory = this.#memory;
    memory.begin();
    const bottom = memory.readU64(wrap(task + this.#offsets.stack));
    if (bottom === 0n) {
      throw new VmiError('VMI_UNSUPPORTED', `the task at ${hex(task)} has exited: it has no stack`);
    }
    memory.readInto(wrap(task + this.#offsets.onCpu), this.#onCpu);
    if (this.#onCpu.some((byte) => byte !== 0)) {
      throw new VmiError(
        'VMI_UNSUPPORTED',
        `the task at ${hex(task)} runs: where it is, only its CPU's registers say (await guest.stack(pid))`,
      );
    }
    const sp = memory.readU64(wrap(task + this.#offsets.sp));
    const words = new StackWords(memory, bottom, this.#stackSize, sp);
    const stack = new Stack();
    if (!words.has(sp)) {
      stack.incomplete = `its stack pointer ${hex(sp)} is not in its stack at ${hex(bottom)}`;
      return stack;
    }
    return this.#walk(words, stack, () => {
      const ip = words.at(sp + this.#frame.ip);
      return {
        ip,
        sp: sp + this.#frame.size,
        bp: words.at(sp + this.#frame.bp),
        // A task that never ran starts at ret_from_fork itself, not behind a call.
        signal: this.#forks.includes(ip),
        guessed: false,
      };
    });
  }

  /**
   * The functions that a task on a CPU is in, by the registers of that CPU; empty in user mode. The
   * stack moves on while it is read, unless the guest is paused.
   * @param task address of a `task_struct`
   * @throws {VmiError} `VMI_UNSUPPORTED`: the source does not tell `rsp`
   */
  running(task: bigint, registers: VcpuRegisters): Stack {
    const { vcpu, rip, rsp, rbp = 0n, cs = 0n } = registers;
    if (rsp === undefined)
      throw new VmiError('VMI_UNSUPPORTED', `the source does not tell rsp of vCPU ${vcpu}`);
    const memory = this.#memory;
    memory.begin();
    const stack = new Stack();
    stack.vcpu = vcpu;
    if ((cs & USER_MODE) === USER_MODE) return stack;
    const bottom = memory.readU64(wrap(task + this.#offsets.stack));
    // An interrupt has a stack of its own, from which the way leads back to the task's.
    const words = new StackWords(memory, bottom, this.#stackSize, rsp, true);
    return this.#walk(words, stack, () => ({
      ip: rip,
      sp: rsp,
      bp: rbp,
      signal: true,
      guessed: false,
    }));
  }

  #walk(words: StackWords, stack: Stack, start: () => State): Stack {
    this.#modules.begin();
    try {
      this.#follow(words, start(), stack);
    } catch (error) {
      if (!(error instanceof FaultError)) throw error;
      stack.incomplete = error.message;
    }
    return stack;
  }

  #follow(words: StackWords, state: State, stack: Stack): void {
    while (stack.length < MAX_FRAMES) {
      if (!this.#isText(state.ip)) {
        stack.incomplete = `${hex(state.ip)} is no kernel text`;
        return;
      }
      stack.push(this.#modules.frame(state.ip, state.guessed, state.signal));
      const known = this.#entry(state.signal ? state.ip : state.ip - 1n);
      if (known?.type === 'end') return;
      if (known?.type === 'undefined' || known?.spReg === 'undefined') {
        stack.incomplete = 'the kernel does not say how this function was entered';
        return;
      }
      const why = step(state, known ?? FRAME_POINTER, known === undefined, words);
      if (why === 'user') return;
      if (why !== undefined) {
        stack.incomplete = why;
        return;
      }
    }
    stack.incomplete = `more than ${MAX_FRAMES} frames`;
  }

  #entry(address: bigint): OrcEntry | undefined {
    const { start, end } = this.#text;
    if (address >= start && address < end) return this.#orc?.find(address);
    return this.#modules.orc(address);
  }

  #isText(address: bigint): boolean {
    const { start, end } = this.#text;
    return (address >= start && address < end) || this.#modules.has(address);
  }
}

const known = new WeakMap<KernelObjects, Unwinder>();

/** The unwinder of a kernel: made once, its tables take some MiB. */
export function unwinderOf(objects: KernelObjects): Unwinder {
  let unwinder = known.get(objects);
  if (unwinder === undefined) {
    unwinder = new Unwinder(objects);
    known.set(objects, unwinder);
  }
  return unwinder;
}

/**
 * One frame up: arch/x86/kernel/unwind_orc.c, unwind_next_frame.
 * @returns why it ends here: `user` where the task came from user mode
 */
function step(
  state: State,
  orc: OrcEntry,
  guessed: boolean,
  words: StackWords,
): string | undefined {
  let sp: bigint;
  switch (orc.spReg) {
    case 'sp':
      sp = wrap(state.sp + BigInt(orc.spOffset));
      break;
    case 'bp':
      sp = wrap(state.bp + BigInt(orc.spOffset));
      break;
    case 'sp-indirect':
      if (!words.has(state.sp)) return `the frame at ${hex(state.sp)} is not in the stack`;
      sp = wrap(words.at(state.sp) + BigInt(orc.spOffset));
      break;
    case 'bp-indirect': {
      const from = wrap(state.bp + BigInt(orc.spOffset));
      if (!words.has(from)) return `the frame at ${hex(from)} is not in the stack`;
      sp = words.at(from);
      break;
    }
    default:
      return 'its frame is where a register points that nobody saved';
  }
  let { bp } = state;
  const before = state.sp;
  if (orc.type === 'call') {
    if (!words.has(sp - 8n)) return `the frame at ${hex(sp)} is not in the stack`;
    state.ip = words.at(sp - 8n);
    state.sp = sp;
  } else {
    // Saved registers, or of those only what an interrupt saves: ip, cs, flags, sp, ss.
    const regs = orc.type === 'regs' ? sp : sp - BigInt(REGS.ip);
    if (!words.has(regs + BigInt(REGS.sp)))
      return `the registers at ${hex(regs)} are not in the stack`;
    if ((words.at(regs + BigInt(REGS.cs)) & USER_MODE) === USER_MODE) return 'user';
    state.ip = words.at(regs + BigInt(REGS.ip));
    state.sp = words.at(regs + BigInt(REGS.sp));
    if (orc.type === 'regs') bp = words.at(regs + BigInt(REGS.bp));
  }
  if (orc.bpReg === 'previous-sp' || orc.bpReg === 'bp') {
    const from = wrap((orc.bpReg === 'bp' ? state.bp : sp) + BigInt(orc.bpOffset));
    if (!words.has(from)) return `the saved frame pointer at ${hex(from)} is not in the stack`;
    bp = words.at(from);
  }
  state.bp = bp;
  state.signal = orc.signal && orc.type !== 'call';
  state.guessed = guessed;
  // Frames only ever lie above each other: what goes down is a loop.
  return state.sp <= before && !words.leads(before, state.sp)
    ? `the frame at ${hex(state.sp)} is not above its own`
    : undefined;
}

/** The words of one stack, read once, further up when they are asked for. */
class StackWords {
  readonly #memory: VirtualMemory;
  readonly #end: bigint;
  readonly #start: bigint;
  #bytes: Buffer;
  /** A stack that is not the task's: from the stack pointer on, as far as it is mapped. */
  readonly #other: { readonly start: bigint; readonly bytes: Buffer } | undefined;

  /** @param running whether the stack pointer may be on another stack: that of an interrupt */
  constructor(memory: VirtualMemory, bottom: bigint, size: number, sp: bigint, running = false) {
    this.#memory = memory;
    this.#end = bottom + BigInt(size);
    if (running && (sp < bottom || sp >= this.#end)) {
      const bytes = Buffer.alloc(size);
      this.#other = { start: sp, bytes: bytes.subarray(0, memory.readInto(sp, bytes)) };
      this.#start = bottom;
      this.#bytes = Buffer.alloc(0);
      return;
    }
    const inside = sp >= bottom && sp < this.#end;
    this.#start = inside ? sp : this.#end;
    const most = Number(this.#end - this.#start);
    this.#bytes = inside ? memory.read(sp, Math.min(FIRST_READ, most)) : Buffer.alloc(0);
  }

  has(address: bigint): boolean {
    return this.#isOther(address) || (address >= this.#start && address + 8n <= this.#end);
  }

  /** Whether the way from one frame to the next leads from an interrupt's stack to the task's. */
  leads(from: bigint, to: bigint): boolean {
    return this.#isOther(from - 8n) && to >= this.#start && to <= this.#end;
  }

  #isOther(address: bigint): boolean {
    if (this.#other === undefined) return false;
    const { start, bytes } = this.#other;
    return address >= start && address + 8n <= start + BigInt(bytes.length);
  }

  /** @throws {FaultError} */
  at(address: bigint): bigint {
    if (this.#isOther(address))
      return this.#other!.bytes.readBigUInt64LE(Number(address - this.#other!.start));
    const offset = Number(address - this.#start);
    if (offset + 8 > this.#bytes.length) {
      this.#bytes = this.#memory.read(this.#start, Number(this.#end - this.#start));
    }
    return this.#bytes.readBigUInt64LE(offset);
  }
}
