import { parseAddress } from '../../address.js';
import { FaultError, VmiError } from '../../errors.js';
import { absentText } from './absent.js';
import { type Description, descriptionOf, registerText } from './description.js';
import { monitor } from './monitor.js';
import { escapeBinary, PACKET_SIZE } from './packet.js';
import type { Absent, ProcessView } from './process-view.js';

/** Absent pages that `monitor absent` can still tell. */
const KEPT = 256;
/** Bytes of memory at most in one answer, which has two digits for each. */
const MAX_MEMORY = PACKET_SIZE / 2 - 16;
/** EFAULT, in the form of the kernel's own debugger. */
const FAULT = 'E14';
const NOTHING = 'E03';
const MALFORMED = 'E22';
const READ_ONLY = 'E.read-only: this debugger neither writes to the guest nor lets it run';

export interface Answer {
  /** What goes back; `undefined`: nothing. */
  readonly data?: string;
  /** Whether the debugger is done. */
  readonly end?: boolean;
}

/** What one debugger asked so far. It only ever answers: nothing here waits, or keeps a guest. */
export class Session {
  readonly #view: ProcessView;
  readonly #log: (text: string) => void;
  readonly #absent = new Map<bigint, Absent>();
  #tid: number;
  #named: readonly number[] = [];
  #multiprocess = false;
  #description: Description | undefined;

  /** @throws {VmiError} the process has ended */
  constructor(view: ProcessView, log: (text: string) => void) {
    this.#view = view;
    this.#log = log;
    this.#tid = view.threads()[0] ?? view.pid;
  }

  /** Pages that could not be read, the last one last. */
  get absent(): Iterable<Absent> {
    return this.#absent.values();
  }

  /**
   * Answers one packet. What the guest cannot answer is an error of the protocol, and logged.
   * @throws {VmiError} `VMI_CLOSED`: the guest has ended
   */
  answer(packet: string): Answer {
    try {
      return this.#answer(packet);
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      this.#log(error.message);
      return { data: error instanceof FaultError ? FAULT : NOTHING };
    }
  }

  #answer(packet: string): Answer {
    const rest = packet.slice(1);
    switch (packet[0]) {
      case '?':
        return { data: `T00thread:${this.#id(this.#tid)};` };
      case 'q':
        return { data: this.#query(packet) };
      case 'H':
        return { data: this.#choose(rest.slice(1), rest[0] === 'g') };
      case 'T':
        this.#view.thread(this.#parseTid(rest) ?? this.#tid);
        return { data: 'OK' };
      case 'g':
        return { data: this.#registers() };
      case 'p':
        return { data: this.#register(rest) };
      case 'm':
        return { data: this.#memory(rest) };
      case 'D':
        return { data: 'OK', end: true };
      case 'k':
        return { end: true };
      case 'v':
        return this.#verbose(packet);
      case 'Q':
        return { data: packet === 'QStartNoAckMode' ? 'OK' : '' };
      case 'G':
      case 'P':
      case 'M':
      case 'X':
      case 'Z':
      case 'z':
      case 'c':
      case 'C':
      case 's':
      case 'S':
        return { data: this.#refuse(packet) };
      default:
        return { data: '' };
    }
  }

  /** What would write to the guest, or let it run. */
  #refuse(packet: string): string {
    // gdb asks by an empty write whether binary ones are known.
    if (/^X[0-9a-f]+,0:/.test(packet)) return '';
    this.#log(`refused ${JSON.stringify(packet.slice(0, 24))}: this debugger is read-only`);
    return READ_ONLY;
  }

  #verbose(packet: string): Answer {
    if (/^v(Cont;|Attach;|Run;|FlashWrite|FlashErase)/.test(packet))
      return { data: this.#refuse(packet) };
    if (packet.startsWith('vKill')) return { data: this.#refuse(packet) };
    return { data: '' };
  }

  #query(packet: string): string {
    const [name = '', ...words] = packet.split(/[:,;]/);
    switch (name) {
      case 'qSupported':
        this.#multiprocess = words.includes('multiprocess+');
        return `PacketSize=${PACKET_SIZE.toString(16)};QStartNoAckMode+;qXfer:features:read+;qXfer:auxv:read+;qXfer:exec-file:read+${this.#multiprocess ? ';multiprocess+' : ''}`;
      case 'qC':
        return `QC${this.#id(this.#tid)}`;
      case 'qAttached':
        return '1';
      case 'qSymbol':
        return 'OK';
      case 'qfThreadInfo':
        this.#named = this.#view.threads();
        return this.#nextThreads();
      case 'qsThreadInfo':
        return this.#nextThreads();
      case 'qThreadExtraInfo':
        return toHex(this.#threadText(this.#parseTid(words[0] ?? '') ?? this.#tid));
      case 'qXfer':
        return this.#transfer(packet);
      case 'qRcmd':
        return this.#monitor(words[0] ?? '');
      default:
        return '';
    }
  }

  #monitor(text: string): string {
    if (!/^([0-9a-f]{2})*$/i.test(text)) return MALFORMED;
    const said = monitor(Buffer.from(text, 'hex').toString('latin1'), this.#view, this.absent);
    return toHex(`${said}\n`.slice(0, MAX_MEMORY)) || 'OK';
  }

  /** Part of a long answer: `qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH`. */
  #transfer(packet: string): string {
    const match = /^qXfer:([\w-]+):(\w+):([^:]*):([0-9a-f]{1,8}),([0-9a-f]{1,8})$/.exec(packet);
    if (match === null) return '';
    const [, object, verb, annex] = match;
    const [offset, length] = [match[4]!, match[5]!].map((digits) => Number.parseInt(digits, 16));
    if (verb !== 'read') return this.#refuse(packet);
    let whole: Uint8Array;
    switch (object) {
      case 'features':
        if (annex !== 'target.xml') return 'E00';
        whole = Buffer.from(this.#registersOf().xml);
        break;
      case 'auxv':
        whole = this.#view.auxv();
        break;
      case 'exec-file':
        whole = Buffer.from(this.#view.exe());
        break;
      default:
        return '';
    }
    const part = whole.subarray(offset, offset! + Math.min(length!, MAX_MEMORY));
    return `${offset! + part.length < whole.length ? 'm' : 'l'}${escapeBinary(part)}`;
  }

  /** A debugger learns only once what kind of program it is. */
  #registersOf(): Description {
    this.#description ??= descriptionOf(this.#view.isCompat());
    return this.#description;
  }

  #choose(id: string, registers: boolean): string {
    const tid = this.#parseTid(id);
    if (tid === undefined) return 'OK';
    this.#view.thread(tid);
    if (registers) this.#tid = tid;
    return 'OK';
  }

  #saved() {
    const found = this.#view.registers(this.#tid);
    if ('saved' in found) return found.saved;
    this.#log(found.why);
    return undefined;
  }

  #registers(): string {
    const saved = this.#saved();
    return this.#registersOf()
      .registers.map((register) => registerText(register, saved))
      .join('');
  }

  #register(number: string): string {
    const register = this.#registersOf().registers[Number.parseInt(number, 16)];
    return register === undefined ? MALFORMED : registerText(register, this.#saved());
  }

  #memory(text: string): string {
    const match = /^([0-9a-f]{1,16}),([0-9a-f]{1,8})$/i.exec(text);
    if (match === null) return MALFORMED;
    const address = parseAddress(`0x${match[1]}`);
    const length = Math.min(Number.parseInt(match[2]!, 16), MAX_MEMORY);
    if (length === 0) return '';
    const bytes = this.#view.read(address, length);
    if (bytes.length > 0) return Buffer.from(bytes).toString('hex');
    this.#noteAbsent(address);
    return FAULT;
  }

  #noteAbsent(address: bigint): void {
    const page = address & ~0xfffn;
    if (this.#absent.has(page)) return;
    const absent = this.#view.absent(address);
    if (this.#absent.size >= KEPT) this.#absent.delete(this.#absent.keys().next().value!);
    this.#absent.set(page, absent);
    this.#log(absentText(absent));
  }

  #threadText(tid: number): string {
    const { comm, state } = this.#view.thread(tid);
    const found = this.#view.registers(tid);
    return `${comm} (${state})${'why' in found ? `, no registers: ${found.why}` : ''}`;
  }

  #nextThreads(): string {
    // An id takes at most 20 characters.
    const count = Math.floor(PACKET_SIZE / 20) - 1;
    const part = this.#named.slice(0, count);
    this.#named = this.#named.slice(count);
    return part.length === 0 ? 'l' : `m${part.map((tid) => this.#id(tid)).join(',')}`;
  }

  #id(tid: number): string {
    const text = tid.toString(16);
    return this.#multiprocess ? `p${this.#view.pid.toString(16)}.${text}` : text;
  }

  /** @returns `undefined` for any thread @throws {VmiError} `VMI_NO_TASK`: another process */
  #parseTid(id: string): number | undefined {
    const match = /^(?:p([0-9a-f]{1,8}|-1)\.?)?([0-9a-f]{1,8}|-1)?$/i.exec(id);
    if (match === null) throw new VmiError('VMI_NO_TASK', `${JSON.stringify(id)} is no thread`);
    const [, pid, tid] = match;
    if (pid !== undefined && pid !== '-1') {
      const number = Number.parseInt(pid, 16);
      if (number !== 0 && number !== this.#view.pid)
        throw new VmiError('VMI_NO_TASK', `process ${number} is not served here`);
    }
    if (tid === undefined || tid === '-1' || /^0+$/.test(tid)) return undefined;
    return Number.parseInt(tid, 16);
  }
}

function toHex(text: string): string {
  return Buffer.from(text).toString('hex');
}
