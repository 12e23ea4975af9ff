/**
 * The native seam: everything `build/Release/vmi_addon.node` exports, and nothing else.
 *
 * `lib/` is the only caller. Native knows memory, page tables, batched gathers and libvmi; it knows
 * nothing of tasks, symbols or types. No misuse of what is declared here may crash the process:
 * wrong types and lengths throw `TypeError`/`RangeError`, use after `close()` throws `VMI_CLOSED`.
 *
 * Every other failure is an `Error` with a string `code` of `VmiErrorCode` and, for `VMI_FAULT`,
 * the fields of {@link NativeFault}. `lib/errors.ts` gives them their class.
 */

/** Fields on an error with code `VMI_FAULT`. */
export interface NativeFault {
  /** The first address that could not be read. */
  address: bigint;
  space: 'physical' | 'virtual';
  /** Root of the page table that was walked; absent for physical addresses. */
  cr3?: bigint;
  /** Bytes asked for and bytes read before the fault. */
  requested: number;
  transferred: number;
  /**
   * Paging level whose entry was not present, 5 (PML5) to 1 (PTE); 0: the address is not in RAM.
   */
  level: number;
  /** With level 0: the address is in RAM, but the dump that is read does not have it. */
  absent: boolean;
}

/** A run of guest-physical RAM and where its bytes live on the host. */
export interface NativeSegment {
  /** Guest-physical address of the first byte, page-aligned. */
  physical: bigint;
  /** Bytes, a multiple of the page size. */
  length: bigint;
  /**
   * `file`: bytes of `fd` from file offset `offset`, mapped read-only and shared; the descriptor is
   * duplicated, the caller keeps its own. `process`: bytes of the process `pid` from its virtual
   * address `offset`, read with process_vm_readv(2). `absent`: RAM whose content the dump does not
   * have; reading it is a fault.
   */
  kind: 'file' | 'process' | 'absent';
  fd?: number;
  /** Not with `absent`. */
  offset?: bigint;
  /**
   * With `file`, at an offset that is a multiple of the page size: one bit a page, the lowest bit
   * of a byte first, set where the file has the page. The others are absent. Copied.
   */
  present?: Uint8Array;
  /**
   * With `process`: memory of no file. A page that the process never touched is zeroes, and is not
   * read, so that it stays untouched; a scan passes it over, and a page in the host's swap as well.
   */
  anonymous?: boolean;
}

export interface NativeMemoryOptions {
  segments: NativeSegment[];
  /**
   * The process that owns the guest. Needed for `process` segments; with `file` segments it lets
   * every operation notice that the guest is gone. Held as a pidfd, so a reused PID is never read.
   */
  pid?: number;
  /**
   * Whether {@link Memory.write} may be called; default false. Each `fd` is open for writing then.
   * What is mapped is mapped read-only all the same.
   */
  write?: boolean;
}

export interface NativeScan {
  /** 1 to 256 bytes. */
  pattern: Uint8Array;
  /** Look only at addresses `k * stride + offsets[i]`; stride 1 looks everywhere. */
  stride: number;
  offsets: number[];
  /** Physical range, end exclusive; whole RAM when left out. */
  start?: bigint;
  end?: bigint;
  /** Stop after so many hits (1 to 65,536). */
  max: number;
  /**
   * 1 to 16; what is found does not depend on it. Left out: one for each 256 MiB to look at, at
   * most 4 and at most the host's CPUs. A source that answers one read at a time (libvmi) is
   * scanned by one.
   */
  threads?: number;
  /**
   * One byte; the scan stops with VMI_ABORTED soon after the caller stores a non-zero value there.
   */
  cancel?: Uint8Array;
}

/**
 * The fastest load there is: `load()` replaces the address in `word[0]` by the 8 bytes there,
 * little-endian, in the memory or address space whose handle is in `handle[0]`. It throws as
 * `readU64` does, and leaves the word as it was. What wraps around when it is stored in the word is
 * the caller's to refuse.
 */
export interface NativeLoader {
  readonly word: BigUint64Array;
  readonly handle: Uint32Array;
  load(): void;
}

/** One for all memories and address spaces of this thread. */
export function loader(): NativeLoader;

/** Guest-physical memory of one source. All methods but `scan` are synchronous. */
export class Memory {
  private constructor();
  /** Pairs (first address, length), ascending, no overlap. */
  readonly ranges: BigUint64Array;
  /** Whether this is mapped memory: every byte can be read without a system call. */
  readonly mapped: boolean;
  /** Whether it was opened for writing. */
  readonly writable: boolean;
  /** For a {@link NativeLoader}; good as long as this object is. */
  readonly handle: number;
  /**
   * Starts an operation on a live guest: drops what the source caches and throws VMI_CLOSED when
   * the guest's process has exited.
   */
  begin(): void;
  /** Reads up to `into.length` bytes; returns the bytes read before the first unreadable one. */
  read(address: bigint, into: Uint8Array): number;
  /** Reads `length` bytes at each address into `into[i * length]`; returns bytes read for each. */
  readMany(addresses: BigUint64Array, length: number, into: Uint8Array): Uint32Array;
  /** Little-endian load; throws VMI_FAULT. */
  readU64(address: bigint): bigint;
  /**
   * Writes `from`; returns the bytes written before the first that cannot be. Throws
   * VMI_UNSUPPORTED where the memory was not opened for writing.
   */
  write(address: bigint, from: Uint8Array): number;
  /** Whether the address is in RAM, but not in the dump that is read. */
  absent(address: bigint): boolean;
  /** Addresses of the pattern, ascending, found on worker threads. Holes of a file are not read. */
  scan(request: NativeScan): Promise<BigUint64Array>;
  /** Waits for scans in flight, then unmaps. Idempotent. */
  close(): void;
}

/**
 * What to read at each row's base address. Column `k` is `size` bytes at `offset` from the row's
 * base (`from` = -1) or from the pointer value of an earlier 8-byte column (`from` < k). A NULL
 * pointer gives zeroes; an unreadable one gives zeroes and sets bit `k` in the row's fault mask.
 */
export class Plan {
  /**
   * Triples (from, offset, size); at most 32 columns; size 1 to 4,096. `expectations`: quadruples
   * (column, mask, min, max), at most 32, of columns of 4 or 8 bytes: min <= (value & mask) <= max,
   * unsigned, with max less than 2^63 above min.
   */
  constructor(columns: Int32Array, expectations?: BigUint64Array);
  /**
   * Of the first `count` rows in `rows`, laid out for `capacity`, those that have a fault or do not
   * hold what is expected: writes their numbers into `into` (`count` elements), ascending, and
   * returns how many.
   */
  unexpected(rows: Uint8Array, capacity: number, count: number, into: Uint32Array): number;
}

/**
 * Rows as columns in one buffer. Laid out for n rows, in this order, each part starting at a
 * multiple of 8: fault masks (u32 × n), base addresses (u64 × n), then each column (size × n).
 */
export interface NativeRows {
  count: number;
  /**
   * The n that the buffer is laid out for: `count` or more. What lies beyond the rows means
   * nothing.
   */
  capacity: number;
  /** `undefined`: the rows are in what was handed in. */
  buffer: ArrayBuffer | undefined;
  /** Rows that came from each head. */
  counts: Uint32Array;
  /** Times a list changed under the walk and was followed again. */
  retries: number;
}

/** What {@link AddressSpace.finder} makes. */
export interface NativeFinder {
  /**
   * The row that was found last, laid out as {@link NativeRows} for one row; a multiple of 8 bytes.
   */
  readonly row: ArrayBuffer;
  /**
   * Starts an operation as {@link Memory.begin} and {@link AddressSpace.flush} do, looks entry
   * `index` up as {@link AddressSpace.lookUp} does, and gathers the plan at it.
   * @returns 0: there is none; 1: `row` is filled; 2: the entry is tagged, and `row` is as it was
   */
  find(index: number): number;
}

/** One page table over one memory, with a software TLB that `flush()` empties. */
export class AddressSpace {
  /** `levels`: 4 or 5. `root`: physical, page-aligned. */
  constructor(memory: Memory, root: bigint, levels: number);
  /** For a {@link NativeLoader}; good as long as this object is. */
  readonly handle: number;
  /**
   * Triples (virtual, length, physical) that need no page walk; used only where the result is RAM.
   */
  setWindows(windows: BigUint64Array): void;
  flush(): void;
  /** Physical address; throws VMI_FAULT with the level that was not present. */
  translate(address: bigint): bigint;
  /**
   * Every level of the walk, triples (level, physical address of the entry, entry), top first,
   * ending with the leaf or the entry that is not present. Ignores windows and the TLB.
   */
  walk(address: bigint): BigUint64Array;
  /**
   * Present mappings in [start, end): triples (virtual, length, physical), ascending, neighbours
   * that are contiguous both ways merged. Where a page table cannot be read, bit 63 of `physical` is
   * set and the rest of it is that table's address, the first one's where several follow each other.
   * Throws VMI_CORRUPT beyond `max` triples.
   */
  mappings(start: bigint, end: bigint, max: number): BigUint64Array;
  /** Like Memory.read, by virtual address. */
  read(address: bigint, into: Uint8Array): number;
  readU64(address: bigint): bigint;
  readU32(address: bigint): number;
  /**
   * Entry `index` (0 to 2^31 - 1) of a radix tree, 0 where it has none. `head`: address of the
   * root's slot. `tree`: seven numbers: a slot holds a node when its bits under (tag mask) are
   * (tag) and its value is above (max internal); the node is at the value minus (tag), and has one
   * byte of shift at (shift offset) and 2^(chunk shift) slots at (slots offset). The top node's
   * shift is a multiple of (chunk shift) up to (max shift), every level's is (chunk shift) less.
   * Throws VMI_CORRUPT for another shift, and where an entry that is not tagged ends the walk
   * early; VMI_FAULT.
   */
  lookUp(tree: Int32Array, head: bigint, index: number): bigint;
  /**
   * A look-up in one call, for a tree, a head and a plan that stay the same. Good until the memory
   * is closed.
   */
  finder(tree: Int32Array, head: bigint, plan: Plan): NativeFinder;
  /**
   * Fills `into`, laid out as {@link NativeRows} for as many rows as there are bases; returns
   * nothing.
   */
  gather(plan: Plan, bases: BigUint64Array, into: Uint8Array): void;
}

/**
 * Walks circular doubly linked lists (`struct list_head`) and gathers a row at what each node is
 * part of. Keeps the nodes that it found: the next walk of the same lists begins with them, and
 * follows every link anew.
 */
export class ListWalker {
  /**
   * `plan`: at most 31 columns. `link`: bytes from a row's base to its node, 0 to 2^20. Good until
   * the memory is closed.
   */
  constructor(space: AddressSpace, plan: Plan, link: number);
  /**
   * Follows the list from each head; heads give no row. Follows RCU rules on a live guest:
   * `next->prev` must point back; where it does not, the walk re-reads, steps back past unlinked
   * nodes, and gives up with VMI_CORRUPT (fields `address`, `found`) when the list stays
   * inconsistent. More than `max` rows in all is VMI_CORRUPT too. `into` takes the rows if they
   * fit, and is laid out for as many as do; it may hold anything.
   */
  walk(heads: BigUint64Array, max: number, into?: Uint8Array): NativeRows;
}

/** Opens memory that is mapped from files, read from a process, or both. */
export function openMemory(options: NativeMemoryOptions): Memory;

// What a guest's CPUs run

/** What a {@link Sampler} looks at, and how often. */
export interface NativeSamplerOptions {
  /**
   * Of each CPU five physical addresses: its count of switches (`rq.nr_switches`), its task by the
   * run queue (`rq.curr`) and by the CPU itself (`current_task`), the loaded mm
   * (`cpu_tlbstate.loaded_mm`), and the word of the run queue's lock that is 0 while it is free.
   * Multiples of 8, of the lock a multiple of 4. 2^64 - 1 where the kernel does not show it; one of
   * the two tasks must be there. 1 to 1,024 CPUs.
   */
  cpus: BigUint64Array;
  /**
   * Triples (virtual, length, physical): the linear mappings that tasks, mms and page directories
   * lie in.
   */
  windows: BigUint64Array;
  /**
   * Offsets in `task_struct`, multiples of 4: `sched_info.last_arrival` (-1: none), `pid`, `tgid`,
   * `flags`, `mm`, `start_time`, `comm`, and a word that is 0 unless somebody writes `comm`
   * (-1: none).
   */
  task: Int32Array;
  /** Offset of `mm_struct.pgd`. */
  pgd: number;
  /** Records that are kept for a slow reader, 1 to 1,048,576. */
  capacity: number;
  /** Nanoseconds between two looks at all CPUs; 0: the thread does nothing else. */
  interval: number;
  /**
   * Part of a core that the thread may take, 0 to 1: the interval is changed to that end. 0: the
   * interval stays.
   */
  share: number;
}

/**
 * A thread that looks at what each CPU of a guest runs, and keeps what changed in a bounded ring.
 * It begins with the constructor, and ends with `stop()`, when the memory is closed, and when the
 * guest is gone. It never waits for a reader: a record that finds the ring full is dropped, and its
 * switch counts as missed.
 *
 * A record is 16 words: host time of the look (CLOCK_MONOTONIC, nanoseconds); host time of the last
 * look before it that did not see the switch, 0 for none; count of switches; switches since the
 * last record of this CPU that have none; index into `cpus`; flags (1: the first record of its CPU,
 * or the count went back; 2: there is no count; 4: a foreign mm was loaded all the time); task;
 * last_arrival; start_time; mm; loaded mm; physical address of its page directory, 0 for not known;
 * pid and, in the upper half, tgid; flags; comm (two words). All of it is of one moment: torn
 * tuples are looked at again.
 */
export class Sampler {
  constructor(memory: Memory, options: NativeSamplerOptions);
  /**
   * Moves records, oldest first, to `into`; returns how many. Once there are none left throws what
   * ended the thread: `VMI_CLOSED`.
   */
  take(into: BigUint64Array): number;
  /**
   * Looks, records, records dropped, looks at a CPU that stayed torn, looks that could not read.
   * In nanoseconds, CPU time of the thread and the interval between looks. Looks that were late; in
   * nanoseconds, by how much in all, the longest time between two looks, and how long the thread
   * was ready and had no core (2^64 - 1: the host does not say).
   */
  readonly statistics: BigUint64Array;
  /** Ends the thread and waits for it; what it saw can still be taken. Idempotent. */
  stop(): void;
}

// libvmi

/** What {@link libvmiReport} found. */
export interface NativeLibvmiReport {
  loaded: boolean;
  /** Names handed to dlopen(3), in order, with its error; empty where it worked. */
  tried: { name: string; error: string }[];
  /** The rest only when `loaded`. Absolute path, links resolved. */
  path?: string;
  /** `0.15` from the file's name, else what the symbols allow: `0.14 or later`. */
  version?: string;
  /** Symbols without which nothing works and that are absent. */
  needed?: string[];
  /** Symbols that are absent, each one capability. */
  missing?: string[];
  drivers?: {
    name: 'xen' | 'kvm' | 'file';
    /** Whether this build has the driver; absent when that cannot be seen. */
    present?: boolean;
    /** Libraries the driver opens by name that this host lacks. */
    missing: string[];
  }[];
}

/**
 * Path of the program that runs libvmi for isolated instances. With `--monitor DOMAIN` it prints whether a domain of Xen has its
 * events on (`on`, `off`, `unknown`), with `--release DOMAIN` it turns them off and exits with 0 when they are.
 */
export function libvmiHost(): string;

/** Looks for libvmi: the file `library`, else $LIBVMI_LIBRARY, else the soname. Stays loaded. */
export function libvmiReport(library?: string): NativeLibvmiReport;

export interface NativeLibvmiOptions {
  driver: 'xen' | 'kvm' | 'file';
  /** Domain name, or the path of a file of raw memory; not used with `id`. */
  name: string;
  /** Domain id. */
  id?: bigint;
  /** As for {@link libvmiReport}. */
  library?: string;
  /** Milliseconds one synchronous call may take, 1 to 86,400,000. */
  deadline: number;
  /**
   * Lets synchronous calls run on the calling thread while the instance is idle. Such a call has no
   * deadline: for the file driver, whose calls are short.
   */
  direct: boolean;
  /** Attaches with VMI_INIT_EVENTS; default false. */
  events?: boolean;
  /**
   * Runs libvmi in a process of its own; default false. A crash is then `VMI_CRASHED` with {@link
   * NativeCrash}, a call that exceeds its deadline `VMI_BUSY`, and the next one starts a new
   * process. Synchronous calls run from the calling thread.
   */
  isolate?: boolean;
}

/** Fields on an error with code `VMI_CRASHED`. */
export interface NativeCrash {
  /** `SIGSEGV`; absent when the process exited by itself. */
  signal?: string;
  exitCode?: number;
  /** What it printed, at most 4,096 bytes. */
  stderr: string;
}

/** Writes to CR3 since the last look. */
export interface NativeCr3Writes {
  /** Triples (vCPU, value, previous value), oldest first. */
  writes: BigUint64Array;
  /**
   * Writes lost since {@link Libvmi.listen}, the oldest of the queue each time, because it was
   * full.
   */
  dropped: number;
}

/** A queued call. */
export interface NativeLibvmiPending<T> {
  ticket: number;
  /** Rejects with `log` on the error: what libvmi printed on stderr meanwhile. */
  done: Promise<T>;
}

export interface NativeLibvmiOutcome {
  /** libvmi reported failure, or success without having written its result. */
  failed: boolean;
  /** In the order of the C prototype, results behind pointers first, then the returned value. */
  values: (bigint | string | Buffer | null)[];
  log: string;
}

export type NativeLibvmiArgument = bigint | number | string | Uint8Array;

/**
 * One instance of libvmi and the thread that owns it; calls run one after the other. A call that
 * has not returned by its deadline poisons the instance: that call and all later ones throw
 * `VMI_BUSY`.
 */
export class Libvmi {
  /**
   * Loads the library; throws `VMI_LIBRARY_MISSING` with what was tried or which symbols it lacks.
   */
  constructor(options: NativeLibvmiOptions);
  /** Path of the library. */
  readonly library: string;
  readonly version: string;
  /** Whether it has vmi_nested_pagetable_lookup, with which page modes got other numbers. */
  readonly nested: boolean;
  /** Whether the library has this call (`vmi_…`), of those in native/source/libvmi/abi.h. */
  has(call: string): boolean;
  /**
   * vmi_init(); rejects with `VMI_ATTACH`. Resolves with what libvmi printed. Once, before anything
   * else.
   */
  attach(deadline: number): NativeLibvmiPending<string>;
  /**
   * Queues a call of native/source/libvmi/abi.h. The instance is not an argument; a `const
   * access_context_t *` is three: 1 (page table) or 2 (PID), that page table or PID, base address;
   * a buffer to fill is its length alone. `fresh`: libvmi's page, V2P and PID caches are emptied
   * first.
   */
  call(
    name: string,
    args: NativeLibvmiArgument[],
    deadline: number,
    fresh: boolean,
  ): NativeLibvmiPending<NativeLibvmiOutcome>;
  /** The same, waiting for it. */
  callNow(name: string, args: NativeLibvmiArgument[]): NativeLibvmiOutcome;
  /**
   * vmi_init_os(); resolves with libvmi's os_t, never 0. `table`: pairs of key and value, numbers
   * as bigint; `string`: the braces of an entry of libvmi.conf; `json`: path of a profile;
   * `global`: libvmi's own file.
   */
  initOs(
    kind: 'table' | 'string' | 'json' | 'global',
    value: string | [string, bigint | string][] | undefined,
    deadline: number,
  ): NativeLibvmiPending<number>;
  /**
   * Registers for writes to CR3 (`events`). Then this instance's thread listens whenever nothing is
   * queued, and keeps the latest `queue` (1 to 1,048,576) writes. Rejects with `VMI_UNSUPPORTED`
   * and the reason.
   */
  listen(queue: number, deadline: number): NativeLibvmiPending<undefined>;
  /** What has come, as soon as something has; one at a time. Rejects when listening has ended. */
  takeWrites(): NativeLibvmiPending<NativeCr3Writes>;
  /** Writes lost since {@link listen} as of now, whether anybody takes or not. */
  droppedWrites(): number;
  /** Ends listening: the guest goes on. */
  unlisten(deadline: number): NativeLibvmiPending<undefined>;
  /**
   * Stops waiting for a call. `true`: it never ran; `false`: it runs or ran, its result is dropped.
   */
  withdraw(ticket: number): boolean;
  /**
   * Poisons the instance if this call runs for longer than its deadline; says so, else `undefined`.
   */
  giveUp(ticket: number): string | undefined;
  /**
   * Memory read through vmi_read_pa. `segments`: triples (guest-physical address, length, address
   * that libvmi knows it by). Its `begin()` empties libvmi's page, V2P, PID and symbol caches.
   */
  memory(segments: BigUint64Array): Memory;
  /**
   * Resumes the guest if it was paused here, then vmi_destroy(). Resolves at once when poisoned.
   * Idempotent.
   */
  close(): NativeLibvmiPending<undefined>;
}
