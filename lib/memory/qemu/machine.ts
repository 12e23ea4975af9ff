import { setTimeout as delay } from 'node:timers/promises';
import { VmiError } from '../../errors.js';
import { milliseconds } from '../../milliseconds.js';
import type { DebugStub } from '../debug-stub.js';
import { PauseGuard } from '../pause-guard.js';
import type { AbortOptions, Machine, VcpuRegisters } from '../physical-memory.js';
import { processStart } from '../process/host-mappings.js';
import { QemuStub } from './gdb-stub.js';
import type { MonitorAccess } from './monitor.js';
import { parseRegisters } from './registers.js';

/** The question for the registers of all vCPUs. */
export const REGISTERS = 'info registers -a';
/** Milliseconds within which the registers that came with the map are those of now. */
const FRESH = 50;
/** Milliseconds that a QEMU which is killed takes from closing its sockets to its end, at most. */
const DYING = 100;

/**
 * The controls of a QEMU. Its monitor serves one client at a time, so it is held only while it is
 * used: other tools, and other attachments to the same guest, find it free.
 */
export class QemuMachine implements Machine {
  readonly #pid: number;
  readonly access: MonitorAccess;
  /**
   * What the monitor says since it was asked for the map, and when that is: for whoever asks first,
   * and soon.
   */
  #first: Promise<{ readonly text: string | undefined; readonly time: number }> | undefined;
  /** Held while the guest is stopped by us. */
  #guard: PauseGuard | undefined;

  constructor(pid: number, access: MonitorAccess, registers: Promise<string | undefined>) {
    this.#pid = pid;
    this.access = whileItRuns(pid, access);
    this.#first = registers.then((text) => ({ text, time: milliseconds() }));
  }

  async registers(options: AbortOptions = {}): Promise<VcpuRegisters[]> {
    options.signal?.throwIfAborted();
    const asked = this.#first;
    this.#first = undefined;
    const first = await asked;
    if (first?.text !== undefined && milliseconds() - first.time < FRESH)
      return parseRegisters(first.text);
    return this.access.use(async (monitor) => parseRegisters(await monitor.human(REGISTERS)));
  }

  /** Stops the vCPUs; a guest that somebody else has stopped stays theirs to resume. */
  async pause(): Promise<void> {
    if (this.#guard !== undefined) return;
    const guard = await PauseGuard.start(this.access.words);
    try {
      await this.access.use(async (monitor) => {
        const status = (await monitor.execute('query-status')) as { running?: boolean };
        if (status.running !== true) return;
        this.#guard = guard;
        await monitor.execute('stop');
      });
    } finally {
      if (this.#guard === undefined) guard.release();
    }
  }

  async resume(): Promise<void> {
    const guard = this.#guard;
    if (guard === undefined) return;
    try {
      await this.access.use((monitor) => monitor.execute('cont'));
    } catch (error) {
      // What has ended stands still no more: closing, and the end of a pause, are no failures then.
      if (!hasEnded(error)) throw error;
    }
    this.#guard = undefined;
    guard.release();
  }

  debugStub(): Promise<DebugStub> {
    const keepStopped = (guard: PauseGuard) => {
      this.#guard = guard;
    };
    return QemuStub.open({ pid: this.#pid, access: this.access, keepStopped });
  }

  async close(): Promise<void> {
    await this.resume();
  }
}

const hasEnded = (error: unknown) => error instanceof VmiError && error.code === 'VMI_CLOSED';

/** A monitor that went with its QEMU is the guest's end, not a socket that is missing. */
function whileItRuns(pid: number, access: MonitorAccess): MonitorAccess {
  const start = processStart(pid);
  const isGone = () => processStart(pid) !== start;
  return {
    words: access.words,
    async use(work) {
      try {
        return await access.use(work);
      } catch (error) {
        const isLost = error instanceof VmiError && /^VMI_(ATTACH|CLOSED)$/.test(error.code);
        if (isLost && !isGone()) await delay(DYING);
        if (!isLost || !isGone()) throw error;
        throw new VmiError('VMI_CLOSED', `QEMU process ${pid} has exited`, { cause: error });
      }
    },
  };
}
