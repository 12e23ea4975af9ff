import { resolve } from 'node:path';
import type {
  NativeCr3Writes,
  Libvmi as NativeLibvmi,
  NativeLibvmiArgument,
  NativeLibvmiOutcome,
  NativeLibvmiPending,
  Memory as NativeMemory,
} from '../../types/addon.js';
import { addon } from '../addon.js';
import { CrashError, fromNative, VmiError, type VmiErrorCode } from '../errors.js';
import { checkOptions, checkSignal, type OptionNames } from '../options.js';

/** Where libvmi says how to build it. */
export const INSTALLATION_GUIDE = 'https://libvmi.com/docs/gcode-install.html';
/** First release with every call that is needed (vmi_pagecache_flush is the youngest). */
export const MINIMUM_VERSION = '0.14';
/** Milliseconds one call into libvmi may take unless told otherwise. */
export const DEFAULT_DEADLINE = 5_000;
/** The same for attaching: libvmi's KVM driver asks libvirt, its Xen driver xenstore. */
export const DEFAULT_ATTACH_DEADLINE = 30_000;
/** Milliseconds between two looks at a call that is past its deadline but started late. */
const LOOK_AGAIN = 20;
/** libvmi prints a line or two per failure; the rest of a flood is of no use. */
const MAX_LOG = 600;

/** For every call that may take its time. */
export interface CallOptions {
  /** Stops the waiting; the call itself runs on inside libvmi, later ones queue behind it. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Milliseconds after which the call counts as hung and the instance is given up; default 5,000.
   */
  readonly deadline?: number | undefined;
}

/** Of a call; `limit` is that of a string. */
const CALL_NAMES: OptionNames<CallOptions & { limit: number }> = {
  signal: true,
  deadline: true,
  limit: true,
};

/** @throws {TypeError} no object, no such option, or a signal that is none */
export function checkCall(options: CallOptions): void {
  checkOptions<CallOptions>(options, CALL_NAMES);
  checkSignal(options.signal);
}

/** How libvmi is loaded and run. */
export interface SessionOptions extends CallOptions {
  readonly driver: 'xen' | 'kvm' | 'file';
  /** Domain name, or path of a file of raw memory. */
  readonly name: string;
  /** Attaches by this domain id; `name`, where there is one, is for messages then. */
  readonly id?: number | bigint | undefined;
  /** Path of the library; `$LIBVMI_LIBRARY`, then `libvmi.so.0` when left out. */
  readonly library?: string | undefined;
  /** Milliseconds for attaching; default 30,000. */
  readonly attachDeadline?: number | undefined;
  /**
   * Whether short calls may run on the calling thread, without a deadline; default: with the file
   * driver only, where they are a table look-up or one read(2).
   */
  readonly direct?: boolean | undefined;
  /**
   * Runs libvmi in a process of its own; default false. What would take this process along is an
   * error then: a crash is {@link CrashError}, a call that has not returned by its deadline
   * `VMI_BUSY`. The next call starts a new process, which is attached and told of the kernel as the
   * last one was.
   */
  readonly isolate?: boolean | undefined;
  /** Attaches for events (VMI_INIT_EVENTS); default false. */
  readonly events?: boolean | undefined;
}

/**
 * One attached instance of libvmi, its calls by name. What {@link Libvmi} and the memory source
 * share.
 */
export class LibvmiSession {
  readonly #native: NativeLibvmi;
  readonly #what: string;
  readonly #deadline: number;
  #closing: Promise<void> | undefined;

  private constructor(native: NativeLibvmi, what: string, deadline: number) {
    this.#native = native;
    this.#what = what;
    this.#deadline = deadline;
  }

  /**
   * Loads libvmi and attaches, on libvmi's own thread (vmi_init with no profile).
   * @throws {VmiError} `VMI_LIBRARY_MISSING`, `VMI_ATTACH`, `VMI_BUSY`, `VMI_ABORTED`
   */
  static async open(options: SessionOptions): Promise<LibvmiSession> {
    if (options.signal?.aborted) throw aborted('attaching', options.signal);
    const session = LibvmiSession.#load(options);
    try {
      await session.#attach(options);
      return session;
    } catch (error) {
      void session.close().catch(() => {});
      throw error;
    }
  }

  /**
   * The same without waiting for libvmi: calls queue behind the attaching. One that fails makes
   * them fail, without its reason.
   * @throws {VmiError} `VMI_LIBRARY_MISSING`
   */
  static start(options: SessionOptions): LibvmiSession {
    const session = LibvmiSession.#load(options);
    session.#attach(options).catch(() => {});
    return session;
  }

  static #load(options: SessionOptions): LibvmiSession {
    const { driver, id, library } = options;
    const isolate = options.isolate ?? false;
    // Whoever starts a process later may be in another folder by then.
    const name =
      isolate && driver === 'file' && options.name !== '' ? resolve(options.name) : options.name;
    const deadline = options.deadline ?? DEFAULT_DEADLINE;
    const what = `${driver === 'file' ? 'libvmi' : driver}:${options.name || id}`;
    try {
      const native = new (addon().Libvmi)({
        driver,
        name,
        ...(id === undefined ? {} : { id: BigInt(id) }),
        ...(library === undefined ? {} : { library }),
        deadline,
        direct: options.direct ?? driver === 'file',
        isolate,
        events: options.events ?? false,
      });
      return new LibvmiSession(native, what, deadline);
    } catch (error) {
      throw explain(error, what);
    }
  }

  async #attach(options: SessionOptions): Promise<void> {
    const deadline = options.attachDeadline ?? DEFAULT_ATTACH_DEADLINE;
    await this.#wait('vmi_init', this.#native.attach(deadline), {
      signal: options.signal,
      deadline,
    });
  }

  /** Path of the library. */
  get library(): string {
    return this.#native.library;
  }

  /** As far as it can be told. */
  get version(): string {
    return this.#native.version;
  }

  /**
   * Whether page modes count from VMI_PM_NONE: libvmi since 2021, told by a call that came along.
   */
  get nested(): boolean {
    return this.#native.nested;
  }

  /** Whether this libvmi has the call. */
  has(name: string): boolean {
    return this.#native.has(name);
  }

  /**
   * Runs a call on libvmi's thread; with `fresh`, what libvmi caches of guest memory is dropped
   * first.
   */
  async call(
    name: string,
    args: NativeLibvmiArgument[] = [],
    options: CallOptions & { readonly fresh?: boolean } = {},
  ): Promise<NativeLibvmiOutcome> {
    if (options.signal?.aborted) throw aborted(name, options.signal);
    const deadline = options.deadline ?? this.#deadline;
    let pending: NativeLibvmiPending<NativeLibvmiOutcome>;
    try {
      pending = this.#native.call(name, args, deadline, options.fresh ?? false);
    } catch (error) {
      throw explain(error, this.#what);
    }
    return this.#wait(name, pending, { signal: options.signal, deadline });
  }

  /** Runs a call and waits for it; at most as long as the session's deadline. */
  callNow(name: string, args: NativeLibvmiArgument[] = []): NativeLibvmiOutcome {
    try {
      return this.#native.callNow(name, args);
    } catch (error) {
      throw explain(error, this.#what);
    }
  }

  /** vmi_init_os(); resolves with libvmi's number for the operating system. */
  async initOs(
    kind: Parameters<NativeLibvmi['initOs']>[0],
    value: Parameters<NativeLibvmi['initOs']>[1],
    options: CallOptions = {},
  ): Promise<number> {
    if (options.signal?.aborted) throw aborted('vmi_init_os', options.signal);
    const deadline = options.deadline ?? this.#deadline;
    return this.#wait('vmi_init_os', this.#native.initOs(kind, value, deadline), {
      signal: options.signal,
      deadline,
    });
  }

  /**
   * Physical memory by vmi_read_pa.
   * @param segments triples (guest-physical address, length, address that libvmi knows it by)
   */
  memory(segments: BigUint64Array): NativeMemory {
    try {
      return this.#native.memory(segments);
    } catch (error) {
      throw explain(error, this.#what);
    }
  }

  /** Begins to listen for writes to CR3; of an instance that was opened for `events`. */
  async listen(queue: number, options: CallOptions = {}): Promise<void> {
    const deadline = options.deadline ?? this.#deadline;
    await this.#wait('vmi_register_event', this.#native.listen(queue, deadline), {
      signal: options.signal,
      deadline,
    });
  }

  /**
   * Writes to CR3 since the last look, as soon as there are any; one caller at a time.
   * @param look milliseconds between two looks at whether libvmi still answers
   */
  takeWrites(look: number, signal: AbortSignal | undefined): Promise<NativeCr3Writes> {
    return this.#wait('vmi_events_listen', this.#native.takeWrites(), {
      signal,
      deadline: look,
      look,
    });
  }

  /** Writes that were lost since listening began, as of now. */
  get droppedWrites(): number {
    return this.#native.droppedWrites();
  }

  /** Ends listening; the guest goes on. */
  async unlisten(): Promise<void> {
    const deadline = this.#deadline;
    await this.#wait('vmi_clear_event', this.#native.unlisten(deadline), { deadline });
  }

  /** Resumes a guest that was paused here, and lets libvmi go of it. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#wait('vmi_destroy', this.#native.close(), { deadline: this.#deadline });
    return this.#closing;
  }

  async #wait<T>(
    name: string,
    pending: NativeLibvmiPending<T>,
    options: CallOptions & { readonly look?: number },
  ): Promise<T> {
    const { signal, deadline, look: interval = LOOK_AGAIN } = options;
    const { promise: stopped, reject: stop } = withResolvers<never>();
    const onAbort = () => {
      this.#native.withdraw(pending.ticket);
      stop(aborted(name, signal!));
    };
    // The native side knows when the call started: one that still waits in the queue has time left.
    const look = () => {
      const hung = this.#native.giveUp(pending.ticket);
      if (hung !== undefined) stop(new VmiError('VMI_BUSY', `${this.#what}: ${hung}`));
      else timer = setTimeout(look, interval);
    };
    let timer = setTimeout(look, deadline);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([pending.done, stopped]);
    } catch (error) {
      throw explain(error, this.#what);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      // A race that one side lost must not end the process when that side rejects later.
      stopped.catch(() => {});
      pending.done.catch(() => {});
    }
  }
}

/**
 * Attaches once more, for events: a session of its own, in a process of its own. The domain of Xen
 * is the very one that `session` has, whatever bears its name by now.
 * @throws {VmiError} `VMI_EVENTS_TAKEN`; as {@link LibvmiSession.open}
 */
export async function openForEvents(
  session: LibvmiSession,
  options: SessionOptions,
): Promise<LibvmiSession> {
  const { driver, signal } = options;
  const domain =
    driver === 'xen' && session.has('vmi_get_vmid')
      ? (await session.call('vmi_get_vmid', [], { signal })).values[0]
      : undefined;
  const id = typeof domain === 'bigint' ? { id: domain } : {};
  return LibvmiSession.open({ ...options, ...id, events: true, isolate: true });
}

/** Puts libvmi's own words at the end of a message. */
export function withLog(message: string, log: string): string {
  const said = log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join('; ');
  return said === '' ? message : `${message}; libvmi said: ${said.slice(0, MAX_LOG)}`;
}

function explain(error: unknown, what: string): unknown {
  const known = fromNative(error);
  if (!(known instanceof VmiError) || known === error) return known;
  if (known instanceof CrashError) {
    return new CrashError(withLog(`${what}: ${known.message}`, known.stderr), known, {
      cause: error,
    });
  }
  const log = (error as { log?: string }).log ?? '';
  return new VmiError(known.code, withLog(`${what}: ${advise(known.code, known.message)}`, log), {
    cause: error,
  });
}

function advise(code: VmiErrorCode, message: string): string {
  if (code !== 'VMI_LIBRARY_MISSING') return message;
  return message.includes(' lacks ')
    ? `${message}. libvmi ${MINIMUM_VERSION} or later is needed: ${INSTALLATION_GUIDE}`
    : `${message}. Install libvmi ${MINIMUM_VERSION} or later (${INSTALLATION_GUIDE}), or name the file in LIBVMI_LIBRARY`;
}

function aborted(what: string, signal: AbortSignal): VmiError {
  return new VmiError('VMI_ABORTED', `${what} was aborted`, { cause: signal.reason });
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers<T>(): { promise: Promise<T>; reject: (reason: unknown) => void } {
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((_, no) => {
    reject = no;
  });
  return { promise, reject };
}
