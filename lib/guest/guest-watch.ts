import { PHYSICAL_MASK } from '../address.js';
import { ChangedError, CorruptError, FaultError, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { TEXT_ENTRY } from '../kernel/x86-64.js';
import type { MachineLook, VcpuRegisters } from '../memory/physical-memory.js';
import { milliseconds } from '../milliseconds.js';

/** Milliseconds between two looks at whether the kernel is where it was: no reset is that short. */
const INTERVAL = 20;
/** Milliseconds that a kernel's clock may stand still before the hypervisor is asked why. */
const STANDSTILL = 3_000;
/** Milliseconds between two questions to the hypervisor, each of which takes some 50. */
const ASK_INTERVAL = 5_000;
/** Bytes of the banner that are compared: the release and who built it. */
const BANNER = 64;
/** Of quick questions one in so many looks at the clock: a look takes as long as a third of one. */
const QUICK = 64;
const CR0_PG = 1n << 31n;
/**
 * The page table of user mode lies next to that of the kernel. arch/x86/include/asm/pgtable.h,
 * PTI_PGTABLE_SWITCH_BIT.
 */
const PTI_BIT = 1n << 12n;

/** Milliseconds that a clock is watched where nothing but it tells, and between two looks at it. */
const CLOCK_WATCH = 1_000;
const CLOCK_STEP = 50;
/** Looks for a tick of the clock after a long time without a question, and milliseconds between. */
const TICKS = 5;
const TICK = 4;
const SLEEPER = new Int32Array(new SharedArrayBuffer(4));

/**
 * Whether a live guest still is what was attached: runs that kernel, in that RAM.
 *
 * A reset leaves RAM as it is, so that the kernel before it may stay whole: its banner and its page
 * table are compared each time, but only registers tell whether a CPU still runs it. They are asked
 * for where its clock stands still, and where an answer fails. Without registers an answer that
 * fails while the clock stands still is all that tells; a kernel that stays whole to the last list
 * is taken for the one that runs.
 */
export class GuestWatch {
  readonly #kernel: Kernel;
  readonly #banner: bigint;
  readonly #identity: Buffer | undefined;
  readonly #textEntry: bigint;
  #clockAt: bigint | undefined;
  #clock = 0n;
  #movedAt = milliseconds();
  #lookedAt = milliseconds();
  #askedAt = Number.NEGATIVE_INFINITY;
  #changed: ChangedError | undefined;
  #quick = 0;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    const watched = kernel.memory.physical.canLook;
    this.#textEntry = watched ? (this.#entryOf(kernel.root) ?? 0n) : 0n;
    this.#banner = watched ? kernel.symbols.address('linux_banner') : 0n;
    this.#identity = watched ? this.#readBanner() : undefined;
    // Else the first look, which may be the first after a crash, has nothing to compare with.
    if (watched && kernel.memory.physical.capabilities.registers)
      this.#clock = this.#readClock() ?? 0n;
  }

  /**
   * Runs one question to the guest.
   * @throws {ChangedError} the guest is no longer what was attached
   */
  ask<T>(question: () => T): T {
    this.check();
    try {
      return question();
    } catch (error) {
      throw this.explain(error);
    }
  }

  /**
   * Checks one time in {@link QUICK}: before a question of less than a microsecond whose every
   * answer is held against the kernel's own page table, so that none can be of another kernel. Its
   * error is to be given to {@link explain}; an answer of "there is none" is to be followed by
   * {@link check}.
   * @throws {ChangedError} the guest is no longer what was attached
   */
  checkNowAndThen(): void {
    if (this.#changed !== undefined || ++this.#quick % QUICK === 0) this.check();
  }

  /** The error of a failed question: that the guest has changed, if it has. */
  explain(error: unknown): unknown {
    const isAnswer = error instanceof CorruptError || error instanceof FaultError;
    if (!isAnswer || this.#identity === undefined) return error;
    if (!this.#isWhole()) return this.#reset(error);
    // A page that is not present is everyday; one that is in no RAM that was known is not.
    if (error instanceof FaultError && error.level !== 0) return error;
    return this.#look(error) ?? error;
  }

  /**
   * Looks whether the guest still is what was attached, at most every {@link INTERVAL}.
   * @throws {ChangedError} it is not
   */
  check(): void {
    if (this.#changed !== undefined) throw this.#changed;
    if (this.#identity === undefined) return;
    const now = milliseconds();
    if (now - this.#lookedAt < INTERVAL) return;
    // That the clock has moved since the last look says nothing of now when that is long ago.
    const isLong = now - this.#lookedAt >= STANDSTILL;
    this.#lookedAt = now;
    this.#kernel.memory.begin();
    if (!this.#isWhole()) throw this.#reset();
    if (isLong) this.#moves(now);
    else if (now - this.#movedAt < STANDSTILL) return;
    if (this.#moves(now, isLong)) return;
    const changed = this.#look();
    if (changed !== undefined) throw changed;
  }

  /**
   * Whether the kernel's image and page table are where they were. A read that fails says nothing
   * of a reset: the question itself fails then, and says where.
   */
  #isWhole(): boolean {
    try {
      const entry = this.#entryOf(this.#kernel.root);
      if (entry === undefined) return true;
      if (entry !== this.#textEntry) return false;
      const banner = this.#readBanner();
      return banner === undefined || banner.equals(this.#identity!);
    } catch (error) {
      // The guest has ended: whoever asks is told by the question itself.
      if (error instanceof VmiError) return true;
      throw error;
    }
  }

  /**
   * Whether `jiffies` has moved since it was looked at last.
   * @param patient whether a few ticks are waited for: it stands still for seconds in an idle guest
   */
  #moves(now: number, patient = false): boolean {
    const { capabilities, held } = this.#kernel.memory.physical;
    if (!capabilities.registers || held || this.#kernel.asked) return true;
    let clock = this.#readClock();
    for (let i = 0; patient && i < TICKS && clock === this.#clock; i++) {
      Atomics.wait(SLEEPER, 0, 0, TICK);
      clock = this.#readClock();
    }
    if (clock === undefined || clock === this.#clock) return clock === undefined;
    this.#clock = clock;
    this.#movedAt = now;
    return true;
  }

  #readClock(): bigint | undefined {
    const { memory, symbols } = this.#kernel;
    this.#clockAt ??= symbols.find('jiffies_64') ?? symbols.find('jiffies') ?? 0n;
    return this.#clockAt === 0n ? undefined : readU64(memory, this.#clockAt);
  }

  /** Whether the clock stands still for as long as it is watched. */
  #standsStill(): boolean {
    const clock = this.#readClock();
    if (clock === undefined) return false;
    for (let waited = 0; waited < CLOCK_WATCH; waited += CLOCK_STEP) {
      Atomics.wait(SLEEPER, 0, 0, CLOCK_STEP);
      if (this.#readClock() !== clock) return false;
    }
    return true;
  }

  /** Asks the hypervisor, unless it was asked just now. */
  #look(cause?: unknown): ChangedError | undefined {
    const now = milliseconds();
    if (now - this.#askedAt < ASK_INTERVAL) return undefined;
    this.#askedAt = now;
    const look = this.#kernel.memory.physical.look();
    if (look === undefined) return undefined;
    if (!look.sameRam) {
      return this.#becomes('memory was plugged into it or taken from it', cause);
    }
    // A kernel that was asked for need not be the one that runs.
    if (this.#kernel.asked) return undefined;
    if (this.#runsAnother(look)) return this.#reset(cause);
    const broken = cause instanceof CorruptError;
    if (look.registers !== undefined || !broken || !this.#standsStill()) return undefined;
    return this.#becomes(
      `the clock of the Linux ${this.#kernel.release} that was attached stands still and its lists are broken: it was reset, or stopped in the middle of a change`,
      cause,
    );
  }

  /**
   * Whether no vCPU runs this kernel. One that crashed leaves CPUs parked in it while another
   * kernel runs, so that only its clock tells where both are mapped.
   */
  #runsAnother({ registers, running }: MachineLook): boolean {
    if (registers === undefined || running !== true) return false;
    const others = registers.filter((cpu) => !this.#runsIt(cpu));
    if (others.length === registers.length) return true;
    const mapsAnother = others.some(({ cr0, cr3 }) => {
      const entry = (cr0 & CR0_PG) === 0n ? undefined : this.#entryOf(cr3 & PHYSICAL_MASK);
      return entry !== undefined && entry !== 0n;
    });
    return mapsAnother && this.#standsStill();
  }

  /** Whether a vCPU's page table maps this kernel's text: all processes share that entry. */
  #runsIt({ cr0, cr3 }: VcpuRegisters): boolean {
    if ((cr0 & CR0_PG) === 0n) return false;
    const root = cr3 & PHYSICAL_MASK;
    return [root, root & ~PTI_BIT].some((table) => this.#entryOf(table) === this.#textEntry);
  }

  #entryOf(root: bigint): bigint | undefined {
    try {
      return this.#kernel.memory.physical.readU64(root + TEXT_ENTRY) & PHYSICAL_MASK;
    } catch (error) {
      if (error instanceof FaultError) return undefined;
      throw error;
    }
  }

  #readBanner(): Buffer | undefined {
    try {
      return this.#kernel.memory.read(this.#banner, BANNER);
    } catch (error) {
      if (error instanceof FaultError) return undefined;
      throw error;
    }
  }

  #reset(cause?: unknown): ChangedError {
    return this.#becomes(
      `it no longer runs the Linux ${this.#kernel.release} that was attached, but was reset`,
      cause,
    );
  }

  #becomes(what: string, cause: unknown): ChangedError {
    this.#changed = new ChangedError(what, { cause });
    return this.#changed;
  }
}

function readU64(memory: Kernel['memory'], address: bigint): bigint | undefined {
  try {
    return memory.readU64(address);
  } catch (error) {
    if (error instanceof FaultError) return undefined;
    throw error;
  }
}
