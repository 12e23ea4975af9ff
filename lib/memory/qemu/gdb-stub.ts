import { chownSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hex, VmiError } from '../../errors.js';
import type { DebugStub, StubHit, StubRegisters } from '../debug-stub.js';
import { PauseGuard } from '../pause-guard.js';
import { GdbSocket } from './gdb-socket.js';
import type { MonitorAccess } from './monitor.js';
import { detach, findStub, freeFromStub, greet, startStub, stopStub } from './stub-control.js';

/** Debug registers of an x86 processor. SDM vol. 3B, 18.2. */
const WATCHPOINTS = 4;
/** Registers of a `g` packet and their bytes, in order. QEMU target/i386/gdbstub.c. */
const LAYOUT: readonly (readonly [name: string, bytes: number])[] = [
  ...['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp'].map((name) => [name, 8] as const),
  ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'].map((name) => [name, 8] as const),
  ['rip', 8],
  ['eflags', 4],
  ...['cs', 'ss', 'ds', 'es', 'fs', 'gs'].map((name) => [name, 4] as const),
  ...['fsBase', 'gsBase', 'kernelGsBase'].map((name) => [name, 8] as const),
  ...['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer'].map((name) => [name, 8] as const),
];

/** What {@link QemuStub.open} needs of the QEMU it is opened on. */
export interface StubHost {
  readonly access: MonitorAccess;
  readonly pid: number;
  /** Takes over the guard of a guest that stays stopped. */
  keepStopped(guard: PauseGuard): void;
}

/**
 * QEMU's own debug stub, turned on for this and off afterwards, on a socket that nobody else can
 * reach.
 */
export class QemuStub implements DebugStub {
  readonly limit = WATCHPOINTS;
  readonly #host: StubHost;
  readonly #folder: string;
  readonly #path: string;
  readonly #guard: PauseGuard;
  readonly #socket: GdbSocket;
  /** Lengths of what is watched. */
  readonly #watched = new Map<bigint, number>();
  #isRunning = false;
  #isInterrupted = false;
  #releasing: Promise<void> | undefined;

  private constructor(host: StubHost, folder: string, guard: PauseGuard, socket: GdbSocket) {
    this.#host = host;
    this.#folder = folder;
    this.#path = socketIn(folder);
    this.#guard = guard;
    this.#socket = socket;
  }

  /**
   * Turns the stub on and connects to it, which stops the guest.
   * @throws {VmiError} `VMI_BUSY`: the guest is stopped already, or another debugger's stub is on
   * @throws {VmiError} `VMI_UNSUPPORTED`: QEMU cannot turn it on
   */
  static async open(host: StubHost): Promise<QemuStub> {
    const folder = privateFolder(host.pid);
    const path = socketIn(folder);
    let guard: PauseGuard | undefined;
    let isStarted = false;
    try {
      guard = await PauseGuard.start(['stub', path, ...host.access.words]);
      const socket = await host.access.use(async (monitor) => {
        const { running } = (await monitor.execute('query-status')) as { running: boolean };
        if (!running)
          throw new VmiError('VMI_BUSY', 'the guest is stopped: nothing would switch; resume it');
        const other = await findStub(monitor);
        if (other !== undefined) {
          throw new VmiError(
            'VMI_BUSY',
            `QEMU's debug stub is in use already (${other}): detach that debugger and turn it off with 'gdbserver none'`,
          );
        }
        await startStub(monitor, path);
        isStarted = true;
        guard?.attend();
        const socket = await GdbSocket.open(path);
        await greet(socket);
        return socket;
      });
      return new QemuStub(host, folder, guard, socket);
    } catch (error) {
      if (isStarted) await freeFromStub(host.access, path).catch(() => {});
      guard?.release();
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async watch(address: bigint, length: 4 | 8): Promise<void> {
    const answer = await this.#socket.ask(`Z2,${address.toString(16)},${length}`);
    if (answer !== 'OK') {
      throw new VmiError(
        'VMI_UNSUPPORTED',
        `QEMU's debug stub does not watch ${hex(address)}: '${answer}' (a processor has ${WATCHPOINTS} watchpoints)`,
      );
    }
    this.#watched.set(address, length);
  }

  async unwatch(address: bigint): Promise<void> {
    const length = this.#watched.get(address);
    if (length === undefined) return;
    await this.#socket.ask(`z2,${address.toString(16)},${length}`);
    this.#watched.delete(address);
  }

  async run(): Promise<StubHit | undefined> {
    for (;;) {
      if (this.#isInterrupted) {
        this.#isInterrupted = false;
        return undefined;
      }
      const stop = await this.#untilStop();
      const match = /^T05thread:p[0-9a-f]+\.([0-9a-f]+);(?:a|r)?watch:([0-9a-f]+);/.exec(stop);
      if (match !== null) {
        const [, thread, address] = match;
        return { vcpu: Number.parseInt(thread!, 16) - 1, address: BigInt(`0x${address}`) };
      }
      // QEMU tells so that the guest is gone: W00, X00.
      if (/^[WX]/.test(stop)) {
        throw new VmiError('VMI_CLOSED', 'the guest has ended while its switches were watched');
      }
    }
  }

  /** Lets the guest run until the stub tells of a stop. */
  async #untilStop(): Promise<string> {
    // The connection may have been lost since the last stop: then nothing is sent, nor runs.
    this.#socket.send('vCont;c');
    this.#isRunning = true;
    try {
      return await this.#socket.receive();
    } finally {
      this.#isRunning = false;
    }
  }

  interrupt(): void {
    this.#isInterrupted = true;
    if (this.#isRunning && !this.#socket.closed) this.#socket.break();
  }

  async registers(vcpu: number): Promise<StubRegisters> {
    await this.#socket.ask(`Hgp1.${(vcpu + 1).toString(16)}`);
    const text = await this.#socket.ask('g');
    const bytes = Buffer.from(text, 'hex');
    const registers: Record<string, bigint> = {};
    let at = 0;
    for (const [name, length] of LAYOUT) {
      if (at + length > bytes.length)
        throw new VmiError('VMI_UNSUPPORTED', `QEMU's debug stub gives no ${name} of vCPU ${vcpu}`);
      registers[name] = length === 8 ? bytes.readBigUInt64LE(at) : BigInt(bytes.readUInt32LE(at));
      at += length;
    }
    return registers;
  }

  release({ stopped = false } = {}): Promise<void> {
    this.#releasing ??= this.#release(stopped);
    return this.#releasing;
  }

  async #release(stopped: boolean): Promise<void> {
    const { access } = this.#host;
    let isStopped = false;
    try {
      if (stopped && !this.#isRunning) {
        for (const address of [...this.#watched.keys()]) await this.unwatch(address);
        // A connection that ends lets nothing run.
        this.#socket.close();
        await access.use(stopStub);
        isStopped = true;
      } else {
        await this.#letGo();
        await access.use(stopStub);
      }
    } catch {
      // The connection is lost, or the guest is: whatever was left behind goes by another one.
      await this.#free();
    } finally {
      if (isStopped) {
        // The guard needs the folder to free the guest, and removes it in the end.
        this.#guard.hold();
        this.#host.keepStopped(this.#guard);
      } else {
        rmSync(this.#folder, { recursive: true, force: true });
        this.#guard.release();
      }
    }
  }

  async #letGo(): Promise<void> {
    if (this.#isRunning) {
      // The stop may be that of a hit which came first; then the break stops it once more.
      this.interrupt();
      while (this.#isRunning) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await detach(this.#socket);
    this.#socket.close();
  }

  async #free(): Promise<void> {
    this.#socket.close();
    try {
      await freeFromStub(this.#host.access, this.#path);
    } catch (error) {
      // A guest that is gone needs nothing.
      if (isAlive(this.#host.pid)) throw error;
    }
  }
}

/** A folder that QEMU and this user can enter and nobody else can. */
function privateFolder(pid: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'vmi-stub-'));
  const owner = statSync(`/proc/${pid}`).uid;
  if (process.getuid?.() === 0 && owner !== 0) chownSync(folder, owner, -1);
  return folder;
}

const socketIn = (folder: string) => join(folder, 'gdb');

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
