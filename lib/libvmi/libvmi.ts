import { statSync } from 'node:fs';
import { inspect } from 'node:util';
import type { NativeLibvmiArgument, NativeLibvmiOutcome } from '../../types/addon.js';
import { type AddressLike, toAddress, toLength } from '../address.js';
import { FaultError, hex, VmiError, type VmiErrorCode } from '../errors.js';
import { checkOptions, checkSignal, describe, type OptionNames } from '../options.js';
import { ramSplits } from '../ram-layout.js';
import { type LibvmiConfig, prepareConfig, refuseLevels } from './config.js';
import { type Cr3WriteOptions, Cr3WriteStream } from './cr3-writes.js';
import { REGISTERS, type RegisterName } from './registers.js';
import {
  type CallOptions,
  checkCall,
  LibvmiSession,
  openForEvents,
  type SessionOptions,
  withLog,
} from './session.js';

/** vmi_mode_t, without what libvmi no longer has. */
export type LibvmiMode = 'xen' | 'kvm' | 'file';
/** os_t. */
export type LibvmiOs = 'linux' | 'windows' | 'freebsd' | 'osx';
/** page_mode_t of x86 guests. */
export type LibvmiPageMode = 'legacy' | 'pae' | 'ia32e';

/** Which guest, by which library. Defaults: see {@link SessionOptions}. */
export type LibvmiOptions = Omit<SessionOptions, 'driver' | 'direct' | 'events'> & {
  readonly mode: LibvmiMode;
};

const MODES: Readonly<Record<LibvmiMode, true>> = { xen: true, kvm: true, file: true };
const LIBVMI_NAMES: OptionNames<LibvmiOptions> = {
  mode: true,
  name: true,
  id: true,
  library: true,
  deadline: true,
  attachDeadline: true,
  isolate: true,
  signal: true,
};

/**
 * Where {@link Libvmi.translateSym2v} and its like look: a process by PID (0: the kernel), or a
 * page table.
 */
export type LibvmiContext = { readonly pid: number } | { readonly dtb: AddressLike };

/** How long a string may be. */
export interface StringOptions extends CallOptions {
  /** Most bytes read; a string that is longer is cut there. Default 4,096. */
  readonly limit?: number;
}

/** vmi_get_tsc_info(). */
export interface TscInfo {
  readonly tscMode: number;
  /** Nanoseconds. */
  readonly elapsedNsec: bigint;
  /** Kilohertz. */
  readonly gtscKhz: number;
  readonly incarnation: number;
}

const OS: readonly (LibvmiOs | undefined)[] = [undefined, 'linux', 'windows', 'freebsd', 'osx'];
const PAGE_MODES = new Map<number, LibvmiPageMode>([
  [1, 'legacy'],
  [2, 'pae'],
  [3, 'ia32e'],
]);
/** Longest PID list walk of libvmi's own that is waited for; it has no bound of its own. */
const LIST_DEADLINE = 10_000;
const DEFAULT_STRING_LIMIT = 4_096;
const PAGE_SIZE = 4_096n;
/** CR4.LA57, SDM vol. 3A, 2.5. */
const CR4_LA57 = 1n << 12n;

/**
 * One instance of libvmi, its calls one for one: `vmi_translate_ksym2v` is {@link translateKsym2v}.
 * docs/libvmi.md lists every function of libvmi.h, and why those that are missing here are.
 *
 * Every method that enters the hypervisor or walks guest memory returns a promise and takes
 * `{ signal, deadline }`; a call that has not returned by its deadline ends this instance with
 * `VMI_BUSY`. What libvmi caches of guest memory is dropped before each call, so nothing is stale.
 * A failure is an error, also where libvmi reports success with nothing: no method gives 0 for "not
 * found". What libvmi printed meanwhile stands in the error's message.
 *
 * A call that the installed libvmi lacks throws `VMI_UNSUPPORTED`; {@link has} tells beforehand.
 */
export class Libvmi implements AsyncDisposable {
  readonly mode: LibvmiMode;
  readonly #session: LibvmiSession;
  readonly #what: string;
  readonly #options: LibvmiOptions;
  /**
   * A RAM file: from this address on its bytes may stand elsewhere than libvmi takes them from;
   * `undefined`: nowhere.
   */
  #certain: bigint | undefined;
  #release: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  private constructor(session: LibvmiSession, options: LibvmiOptions) {
    this.mode = options.mode;
    this.#options = options;
    this.#session = session;
    if (options.mode === 'file') {
      const { size } = statSync(options.name, { bigint: true });
      const lowest = ramSplits(size).reduce((least, { low }) => (low < least ? low : least), size);
      this.#certain = lowest < size ? lowest : undefined;
    }
    this.#what = `${options.mode === 'file' ? 'libvmi' : options.mode}:${options.id ?? options.name}`;
  }

  /**
   * vmi_init(): physical memory, registers and pause; no profile is needed.
   * @throws {VmiError} `VMI_LIBRARY_MISSING`, `VMI_ATTACH` with libvmi's reason, `VMI_BUSY`,
   *   `VMI_ABORTED`
   */
  static async init(options: LibvmiOptions): Promise<Libvmi> {
    checkOptions(options, LIBVMI_NAMES);
    checkSignal(options.signal);
    const { mode, ...rest } = options;
    if (!Object.hasOwn(MODES, mode))
      throw new TypeError(
        `Expected mode as one of ${Object.keys(MODES).join(', ')} but received ${describe(mode)}`,
      );
    return new Libvmi(await LibvmiSession.open({ ...rest, driver: mode }), options);
  }

  /**
   * {@link init}, {@link initPaging} (not for files) and {@link initOs}: what vmi_init_complete()
   * does, which leaks its instance when it fails.
   * @throws {VmiError} as those
   */
  static async initComplete(options: LibvmiOptions, config: LibvmiConfig): Promise<Libvmi> {
    const libvmi = await Libvmi.init(options);
    try {
      if (options.mode !== 'file') await libvmi.initPaging(0, options);
      await libvmi.initOs(config, options);
      return libvmi;
    } catch (error) {
      await libvmi.destroy();
      throw error;
    }
  }

  /** Path of the library. */
  get library(): string {
    return this.#session.library;
  }

  /** libvmi's version, as far as a library tells. */
  get version(): string {
    return this.#session.version;
  }

  /** Whether this libvmi has a call, by its name in C: `vmi_get_tsc_info`. */
  has(call: string): boolean {
    return this.#session.has(call);
  }

  /**
   * vmi_init_paging(): finds the guest's paging mode. For live guests.
   * @param flags 1: treat Windows' transition pages as present
   * @throws {VmiError} `VMI_UNSUPPORTED`: not found, or 5-level paging
   */
  async initPaging(flags: 0 | 1 = 0, options: CallOptions = {}): Promise<LibvmiPageMode> {
    await this.#refuseFiveLevels(options);
    return this.#pageMode(await this.#value('vmi_init_paging', [flags], options));
  }

  /**
   * vmi_init_os(): tells libvmi which kernel it is.
   *
   * libvmi takes vCPU 0's CR3 for the kernel's page table, which dangles once that process exits.
   * Where the configuration does not say where the table is, it is looked up (`init_top_pgt`) and
   * set afterwards.
   * @throws {VmiError} `VMI_UNSUPPORTED` with libvmi's reason, or for a file of RAM that is split,
   *   or may be; `VMI_ATTACH`: the configuration cannot be read
   */
  async initOs(config: LibvmiConfig, options: CallOptions = {}): Promise<LibvmiOs> {
    checkCall(options);
    await this.#refuseFiveLevels(options);
    const prepared = prepareConfig(config);
    try {
      this.#proveFlat(config);
    } catch (error) {
      prepared.release();
      throw error;
    }
    this.#release?.();
    this.#release = prepared.release;
    const init = async (value: typeof prepared.value) =>
      OS[await this.#session.initOs(prepared.kind, value, options)];
    let os = await init(prepared.value);
    if (
      os === 'linux' &&
      this.mode !== 'file' &&
      !prepared.anchored &&
      Array.isArray(prepared.value)
    ) {
      const anchor = await this.#anchor(options);
      if (anchor !== undefined) os = await init([...prepared.value, ...anchor]);
    }
    if (os === undefined)
      throw this.#error('VMI_UNSUPPORTED', 'libvmi recognised an operating system unknown here');
    return os;
  }

  /** vmi_destroy(). Idempotent; a guest paused here is resumed first. */
  destroy(): Promise<void> {
    this.#closing ??= this.#session.close().finally(() => this.#release?.());
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  // Identity

  /** vmi_get_name(): the domain's name, or the file's path. */
  getName(): string {
    return this.#textNow('vmi_get_name', 'the name of the guest');
  }

  /** vmi_get_vmid(): the domain's id. `VMI_UNSUPPORTED` for a file. */
  getVmid(): bigint {
    if (this.mode === 'file') throw this.#error('VMI_UNSUPPORTED', 'a file has no domain id');
    return this.#valueNow('vmi_get_vmid');
  }

  /** vmi_get_library_arch(): 0 unknown, 1 x86, 2 x86-64, 3 arm32, 4 arm64. */
  getLibraryArch(): number {
    return Number(this.#valueNow('vmi_get_library_arch'));
  }

  /**
   * vmi_get_page_mode() of a vCPU; a file has that of its kernel. `VMI_UNSUPPORTED` while it is not
   * known.
   */
  async getPageMode(vcpu = 0, options: CallOptions = {}): Promise<LibvmiPageMode> {
    return this.#pageMode(await this.#value('vmi_get_page_mode', [vcpu], options));
  }

  /**
   * vmi_get_address_width(): bytes of an address, 4 or 8. `VMI_UNSUPPORTED` before paging is known.
   */
  getAddressWidth(): number {
    const width = Number(this.#valueNow('vmi_get_address_width'));
    if (width === 0)
      throw this.#error(
        'VMI_UNSUPPORTED',
        'the paging mode is not known yet: initPaging() or initOs()',
      );
    return width;
  }

  /** vmi_get_ostype(); `undefined` before {@link initOs}. */
  getOstype(): LibvmiOs | undefined {
    return OS[Number(this.#valueNow('vmi_get_ostype'))];
  }

  /** vmi_get_memsize(): bytes of RAM the guest was given. */
  getMemsize(): bigint {
    return this.#positive('vmi_get_memsize', "the guest's memory size");
  }

  /** vmi_get_max_physical_address(): one more than the highest physical address. */
  getMaxPhysicalAddress(): bigint {
    return this.#positive('vmi_get_max_physical_address', "the guest's highest address");
  }

  /** vmi_get_num_vcpus(). `VMI_UNSUPPORTED` for a file. */
  getNumVcpus(): number {
    return Number(this.#positive('vmi_get_num_vcpus', 'the number of vCPUs'));
  }

  /** vmi_get_winver(): libvmi's number for the Windows version. */
  async getWinver(options: CallOptions = {}): Promise<number> {
    return Number(await this.#value('vmi_get_winver', [], options));
  }

  /** vmi_get_win_buildnumber(), since 0.14. */
  async getWinBuildnumber(options: CallOptions = {}): Promise<number> {
    return Number(await this.#value('vmi_get_win_buildnumber', [], options));
  }

  /** vmi_get_winver_str(). */
  async getWinverStr(options: CallOptions = {}): Promise<string> {
    return this.#text('vmi_get_winver_str', [], options, 'the Windows version');
  }

  /** vmi_get_winver_manual(): the Windows version by the physical address of its KDVB. */
  async getWinverManual(kdvb: AddressLike, options: CallOptions = {}): Promise<number> {
    return Number(await this.#value('vmi_get_winver_manual', [toAddress(kdvb)], options));
  }

  /** vmi_get_linux_sysmap(): path of the System.map in use. `VMI_UNSUPPORTED`: none. */
  getLinuxSysmap(): string {
    return this.#textNow('vmi_get_linux_sysmap', 'a Linux System.map');
  }

  /** vmi_get_freebsd_sysmap(). `VMI_UNSUPPORTED`: none. */
  getFreebsdSysmap(): string {
    return this.#textNow('vmi_get_freebsd_sysmap', 'a FreeBSD System.map');
  }

  /** vmi_get_rekall_path(): path of the JSON profile in use. `VMI_UNSUPPORTED`: none. */
  getRekallPath(): string {
    return this.#textNow('vmi_get_rekall_path', 'a JSON profile');
  }

  /** vmi_get_os_profile_path(), since 0.14. `VMI_UNSUPPORTED`: none. */
  getOsProfilePath(): string {
    return this.#textNow('vmi_get_os_profile_path', 'a profile');
  }

  /**
   * vmi_get_offset(): an offset of the configuration by libvmi's name: `linux_tasks`,
   * `linux_kaslr`, `kpgd`, …
   * @throws {VmiError} `VMI_TYPE`: no such name, or {@link initOs} has not been called
   */
  async getOffset(name: string, options: CallOptions = {}): Promise<bigint> {
    return this.#found(
      'vmi_get_offset',
      [name],
      options,
      'VMI_TYPE',
      `libvmi has no offset '${name}'`,
    );
  }

  /**
   * vmi_get_kernel_struct_offset(): bytes from the start of a structure to a member, from a JSON
   * profile.
   * @throws {VmiError} `VMI_TYPE`
   */
  async getKernelStructOffset(
    struct: string,
    member: string,
    options: CallOptions = {},
  ): Promise<bigint> {
    const what = `libvmi's profile has no ${struct}.${member}`;
    return this.#found('vmi_get_kernel_struct_offset', [struct, member], options, 'VMI_TYPE', what);
  }

  // Translation

  /**
   * vmi_translate_ksym2v(): virtual address of a kernel symbol.
   * @throws {VmiError} `VMI_SYMBOL`
   */
  async translateKsym2v(symbol: string, options: CallOptions = {}): Promise<bigint> {
    const what = `libvmi knows no kernel symbol '${symbol}'`;
    return this.#nonZero('vmi_translate_ksym2v', [symbol], options, 'VMI_SYMBOL', what);
  }

  /**
   * vmi_translate_sym2v(): virtual address of a symbol of the module loaded at `base` (Windows).
   * @throws {VmiError} `VMI_SYMBOL`
   */
  async translateSym2v(
    context: LibvmiContext,
    base: AddressLike,
    symbol: string,
    options: CallOptions = {},
  ): Promise<bigint> {
    const args = [...contextArguments(context, base), symbol];
    return this.#nonZero(
      'vmi_translate_sym2v',
      args,
      options,
      'VMI_SYMBOL',
      `libvmi knows no symbol '${symbol}'`,
    );
  }

  /**
   * vmi_translate_v2sym(): symbol at an offset `rva` in the module loaded at `base` (Windows).
   * @throws {VmiError} `VMI_SYMBOL`
   */
  async translateV2sym(
    context: LibvmiContext,
    base: AddressLike,
    rva: AddressLike,
    options: CallOptions = {},
  ): Promise<string> {
    const args = [...contextArguments(context, base), toAddress(rva)];
    return this.#text(
      'vmi_translate_v2sym',
      args,
      options,
      `a symbol at ${hex(toAddress(rva))}`,
      'VMI_SYMBOL',
    );
  }

  /**
   * vmi_translate_v2ksym(): kernel symbol at exactly this virtual address.
   * @throws {VmiError} `VMI_SYMBOL`
   */
  async translateV2ksym(
    address: AddressLike,
    context: LibvmiContext = { pid: 0 },
    options: CallOptions = {},
  ): Promise<string> {
    const args = [...contextArguments(context, address), toAddress(address)];
    return this.#text(
      'vmi_translate_v2ksym',
      args,
      options,
      `a kernel symbol at ${hex(toAddress(address))}`,
      'VMI_SYMBOL',
    );
  }

  /**
   * vmi_translate_kv2p(): physical address of a kernel address.
   * @throws {VmiError} `VMI_FAULT`: not mapped
   */
  async translateKv2p(address: AddressLike, options: CallOptions = {}): Promise<bigint> {
    return this.#translated(
      'vmi_translate_kv2p',
      toAddress(address),
      [toAddress(address)],
      options,
    );
  }

  /**
   * vmi_translate_uv2p(): physical address of a virtual address of process `pid`.
   * @throws {VmiError} `VMI_FAULT`: not mapped, or no such process
   */
  async translateUv2p(
    address: AddressLike,
    pid: number,
    options: CallOptions = {},
  ): Promise<bigint> {
    return this.#translated(
      'vmi_translate_uv2p',
      toAddress(address),
      [toAddress(address), pid],
      options,
    );
  }

  /**
   * vmi_pagetable_lookup(): physical address by the page table at `dtb`. Every level of it:
   * `VirtualMemory.walk`.
   * @throws {VmiError} `VMI_FAULT`: not mapped
   */
  async pagetableLookup(
    dtb: AddressLike,
    address: AddressLike,
    options: CallOptions = {},
  ): Promise<bigint> {
    const args = [toAddress(dtb), toAddress(address)];
    return this.#translated('vmi_pagetable_lookup', toAddress(address), args, options);
  }

  /**
   * vmi_pid_to_dtb(): page table of a process. Finds processes only, no threads; PID 0 gives the
   * kernel's own table. `Guest.pidToCr3` answers for every task.
   * @throws {VmiError} `VMI_NO_TASK`: no such process, or one with no page table of its own
   *   (libvmi: success, with 0)
   */
  async pidToDtb(pid: number, options: CallOptions = {}): Promise<bigint> {
    const what = `libvmi finds no page table for PID ${pid}: no such process, or a kernel thread that sleeps`;
    return this.#nonZero(
      'vmi_pid_to_dtb',
      [pid],
      { deadline: LIST_DEADLINE, ...options },
      'VMI_NO_TASK',
      what,
    );
  }

  /**
   * vmi_dtb_to_pid(): a process with this page table; of several, the first in the kernel's list.
   * @throws {VmiError} `VMI_NO_TASK`
   */
  async dtbToPid(dtb: AddressLike, options: CallOptions = {}): Promise<number> {
    const what = `libvmi finds no process with page table ${hex(toAddress(dtb))}`;
    const args = [toAddress(dtb)];
    const pid = await this.#found(
      'vmi_dtb_to_pid',
      args,
      { deadline: LIST_DEADLINE, ...options },
      'VMI_NO_TASK',
      what,
    );
    if (pid < 0n) throw this.#error('VMI_NO_TASK', what);
    return Number(pid);
  }

  // Reads

  /**
   * vmi_read_pa(): a copy of `length` bytes (at most 64 MiB) at a physical address.
   * @throws {FaultError} the first address that libvmi cannot read
   */
  async readPa(address: AddressLike, length: number, options: CallOptions = {}): Promise<Buffer> {
    return this.#bytes(
      'vmi_read_pa',
      toAddress(address),
      [toAddress(address)],
      length,
      'physical',
      options,
    );
  }

  /**
   * vmi_read_va(): the same at a virtual address of process `pid`; 0: the kernel. @throws
   * {VmiError} `VMI_FAULT`
   */
  async readVa(
    address: AddressLike,
    pid: number,
    length: number,
    options: CallOptions = {},
  ): Promise<Buffer> {
    return this.#bytes(
      'vmi_read_va',
      toAddress(address),
      [toAddress(address), pid],
      length,
      'virtual',
      options,
    );
  }

  /** vmi_read_ksym(): the same at a kernel symbol. */
  async readKsym(symbol: string, length: number, options: CallOptions = {}): Promise<Buffer> {
    const address = await this.translateKsym2v(symbol, options);
    return this.#bytes('vmi_read_ksym', address, [symbol], length, 'virtual', options);
  }

  /** vmi_read_8_pa(). @throws {FaultError} */
  async read8Pa(address: AddressLike, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadPa('vmi_read_8_pa', address, 1, options));
  }

  /** vmi_read_16_pa(). @throws {FaultError} */
  async read16Pa(address: AddressLike, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadPa('vmi_read_16_pa', address, 2, options));
  }

  /** vmi_read_32_pa(). @throws {FaultError} */
  async read32Pa(address: AddressLike, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadPa('vmi_read_32_pa', address, 4, options));
  }

  /** vmi_read_64_pa(). @throws {FaultError} */
  async read64Pa(address: AddressLike, options: CallOptions = {}): Promise<bigint> {
    return this.#loadPa('vmi_read_64_pa', address, 8, options);
  }

  /**
   * vmi_read_addr_pa(): an address of the guest's width ({@link getAddressWidth}). @throws
   * {FaultError}
   */
  async readAddrPa(address: AddressLike, options: CallOptions = {}): Promise<bigint> {
    return this.#loadPa('vmi_read_addr_pa', address, 8, options);
  }

  /** vmi_read_8_va() of process `pid`; 0: the kernel. @throws {VmiError} `VMI_FAULT` */
  async read8Va(address: AddressLike, pid: number, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadVa('vmi_read_8_va', address, pid, 1, options));
  }

  /** vmi_read_16_va(). @throws {VmiError} `VMI_FAULT` */
  async read16Va(address: AddressLike, pid: number, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadVa('vmi_read_16_va', address, pid, 2, options));
  }

  /** vmi_read_32_va(). @throws {VmiError} `VMI_FAULT` */
  async read32Va(address: AddressLike, pid: number, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadVa('vmi_read_32_va', address, pid, 4, options));
  }

  /** vmi_read_64_va(). @throws {VmiError} `VMI_FAULT` */
  async read64Va(address: AddressLike, pid: number, options: CallOptions = {}): Promise<bigint> {
    return this.#loadVa('vmi_read_64_va', address, pid, 8, options);
  }

  /** vmi_read_addr_va(). @throws {VmiError} `VMI_FAULT` */
  async readAddrVa(address: AddressLike, pid: number, options: CallOptions = {}): Promise<bigint> {
    return this.#loadVa('vmi_read_addr_va', address, pid, 8, options);
  }

  /** vmi_read_8_ksym(). @throws {VmiError} `VMI_SYMBOL`: unknown, or it cannot be read */
  async read8Ksym(symbol: string, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadKsym('vmi_read_8_ksym', symbol, options));
  }

  /** vmi_read_16_ksym(). @throws {VmiError} `VMI_SYMBOL` */
  async read16Ksym(symbol: string, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadKsym('vmi_read_16_ksym', symbol, options));
  }

  /** vmi_read_32_ksym(). @throws {VmiError} `VMI_SYMBOL` */
  async read32Ksym(symbol: string, options: CallOptions = {}): Promise<number> {
    return Number(await this.#loadKsym('vmi_read_32_ksym', symbol, options));
  }

  /** vmi_read_64_ksym(). @throws {VmiError} `VMI_SYMBOL` */
  async read64Ksym(symbol: string, options: CallOptions = {}): Promise<bigint> {
    return this.#loadKsym('vmi_read_64_ksym', symbol, options);
  }

  /** vmi_read_addr_ksym(). @throws {VmiError} `VMI_SYMBOL` */
  async readAddrKsym(symbol: string, options: CallOptions = {}): Promise<bigint> {
    return this.#loadKsym('vmi_read_addr_ksym', symbol, options);
  }

  /**
   * vmi_read_str_pa(), bounded: the bytes up to the first zero, at most `limit`. Read page by page
   * through vmi_read_pa(), because libvmi's own reads until it meets a zero or unmapped memory.
   * @throws {FaultError} memory ends before the string does
   */
  async readStrPa(address: AddressLike, options: StringOptions = {}): Promise<string> {
    return this.#string(toAddress(address), options, (at, length) =>
      this.readPa(at, length, options),
    );
  }

  /** vmi_read_str_va(), bounded like {@link readStrPa}. */
  async readStrVa(address: AddressLike, pid: number, options: StringOptions = {}): Promise<string> {
    return this.#string(toAddress(address), options, (at, length) =>
      this.readVa(at, pid, length, options),
    );
  }

  /** vmi_read_str_ksym(), bounded like {@link readStrPa}. */
  async readStrKsym(symbol: string, options: StringOptions = {}): Promise<string> {
    return this.readStrVa(await this.translateKsym2v(symbol, options), 0, options);
  }

  // Writes. They change a running guest; nothing checks what is written.

  /**
   * vmi_write_pa(). @throws {VmiError} `VMI_UNSUPPORTED`: not all was written; the file driver
   * writes nothing
   */
  async writePa(address: AddressLike, bytes: Uint8Array, options: CallOptions = {}): Promise<void> {
    await this.#write(
      'vmi_write_pa',
      hex(toAddress(address)),
      [toAddress(address)],
      bytes,
      options,
    );
  }

  /** vmi_write_va() of process `pid`; 0: the kernel. */
  async writeVa(
    address: AddressLike,
    pid: number,
    bytes: Uint8Array,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#write(
      'vmi_write_va',
      hex(toAddress(address)),
      [toAddress(address), pid],
      bytes,
      options,
    );
  }

  /** vmi_write_ksym(). */
  async writeKsym(symbol: string, bytes: Uint8Array, options: CallOptions = {}): Promise<void> {
    await this.#write('vmi_write_ksym', symbol, [symbol], bytes, options);
  }

  /** vmi_write_8_pa(). */
  async write8Pa(address: AddressLike, value: number, options: CallOptions = {}): Promise<void> {
    await this.#store(
      'vmi_write_8_pa',
      hex(toAddress(address)),
      [toAddress(address), value],
      options,
    );
  }

  /** vmi_write_16_pa(). */
  async write16Pa(address: AddressLike, value: number, options: CallOptions = {}): Promise<void> {
    await this.#store(
      'vmi_write_16_pa',
      hex(toAddress(address)),
      [toAddress(address), value],
      options,
    );
  }

  /** vmi_write_32_pa(). */
  async write32Pa(address: AddressLike, value: number, options: CallOptions = {}): Promise<void> {
    await this.#store(
      'vmi_write_32_pa',
      hex(toAddress(address)),
      [toAddress(address), value],
      options,
    );
  }

  /** vmi_write_64_pa(). */
  async write64Pa(address: AddressLike, value: bigint, options: CallOptions = {}): Promise<void> {
    await this.#store(
      'vmi_write_64_pa',
      hex(toAddress(address)),
      [toAddress(address), value],
      options,
    );
  }

  /** vmi_write_addr_pa(). */
  async writeAddrPa(address: AddressLike, value: bigint, options: CallOptions = {}): Promise<void> {
    await this.#store(
      'vmi_write_addr_pa',
      hex(toAddress(address)),
      [toAddress(address), value],
      options,
    );
  }

  /** vmi_write_8_va(). */
  async write8Va(
    address: AddressLike,
    pid: number,
    value: number,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#store(
      'vmi_write_8_va',
      hex(toAddress(address)),
      [toAddress(address), pid, value],
      options,
    );
  }

  /** vmi_write_16_va(). */
  async write16Va(
    address: AddressLike,
    pid: number,
    value: number,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#store(
      'vmi_write_16_va',
      hex(toAddress(address)),
      [toAddress(address), pid, value],
      options,
    );
  }

  /** vmi_write_32_va(). */
  async write32Va(
    address: AddressLike,
    pid: number,
    value: number,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#store(
      'vmi_write_32_va',
      hex(toAddress(address)),
      [toAddress(address), pid, value],
      options,
    );
  }

  /** vmi_write_64_va(). */
  async write64Va(
    address: AddressLike,
    pid: number,
    value: bigint,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#store(
      'vmi_write_64_va',
      hex(toAddress(address)),
      [toAddress(address), pid, value],
      options,
    );
  }

  /** vmi_write_addr_va(). */
  async writeAddrVa(
    address: AddressLike,
    pid: number,
    value: bigint,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#store(
      'vmi_write_addr_va',
      hex(toAddress(address)),
      [toAddress(address), pid, value],
      options,
    );
  }

  /** vmi_write_8_ksym(). */
  async write8Ksym(symbol: string, value: number, options: CallOptions = {}): Promise<void> {
    await this.#store('vmi_write_8_ksym', symbol, [symbol, value], options);
  }

  /** vmi_write_16_ksym(). */
  async write16Ksym(symbol: string, value: number, options: CallOptions = {}): Promise<void> {
    await this.#store('vmi_write_16_ksym', symbol, [symbol, value], options);
  }

  /** vmi_write_32_ksym(). */
  async write32Ksym(symbol: string, value: number, options: CallOptions = {}): Promise<void> {
    await this.#store('vmi_write_32_ksym', symbol, [symbol, value], options);
  }

  /** vmi_write_64_ksym(). */
  async write64Ksym(symbol: string, value: bigint, options: CallOptions = {}): Promise<void> {
    await this.#store('vmi_write_64_ksym', symbol, [symbol, value], options);
  }

  /** vmi_write_addr_ksym(). */
  async writeAddrKsym(symbol: string, value: bigint, options: CallOptions = {}): Promise<void> {
    await this.#store('vmi_write_addr_ksym', symbol, [symbol, value], options);
  }

  // The machine

  /**
   * vmi_get_vcpureg(): a register of one vCPU.
   *
   * A file has none; libvmi answers CR3 with the kernel's page table it was told of.
   * @throws {VmiError} `VMI_UNSUPPORTED`: the driver does not tell
   */
  async getVcpureg(register: RegisterName, vcpu = 0, options: CallOptions = {}): Promise<bigint> {
    const what = `libvmi cannot read ${register} of vCPU ${vcpu}`;
    return this.#found(
      'vmi_get_vcpureg',
      [registerNumber(register), vcpu],
      options,
      'VMI_UNSUPPORTED',
      what,
    );
  }

  /** vmi_set_vcpureg(). @throws {VmiError} `VMI_UNSUPPORTED` */
  async setVcpureg(
    register: RegisterName,
    value: bigint,
    vcpu = 0,
    options: CallOptions = {},
  ): Promise<void> {
    const what = `libvmi cannot set ${register} of vCPU ${vcpu}`;
    await this.#done('vmi_set_vcpureg', [value, registerNumber(register), vcpu], options, what);
  }

  /**
   * vmi_pause_vm(). libvmi says yes for a file too, and nothing happens. @throws {VmiError}
   * `VMI_UNSUPPORTED`
   */
  async pauseVm(options: CallOptions = {}): Promise<void> {
    await this.#done('vmi_pause_vm', [], options, 'libvmi cannot pause the guest');
  }

  /** vmi_resume_vm(). @throws {VmiError} `VMI_UNSUPPORTED` */
  async resumeVm(options: CallOptions = {}): Promise<void> {
    await this.#done('vmi_resume_vm', [], options, 'libvmi cannot resume the guest');
  }

  /**
   * vmi_request_page_fault(), since 0.14: injects a page fault into a paused vCPU in user mode. Xen
   * only.
   */
  async requestPageFault(
    vcpu: number,
    address: AddressLike,
    errorCode: number,
    options: CallOptions = {},
  ): Promise<void> {
    const args = [vcpu, toAddress(address), errorCode];
    await this.#done(
      'vmi_request_page_fault',
      args,
      options,
      `libvmi cannot inject a page fault at ${hex(toAddress(address))}`,
    );
  }

  /** vmi_get_tsc_info(), since 0.14. Xen only. */
  async getTscInfo(options: CallOptions = {}): Promise<TscInfo> {
    const outcome = await this.#run('vmi_get_tsc_info', [], options);
    if (outcome.failed)
      throw this.#error('VMI_UNSUPPORTED', 'libvmi has no information on the TSC', outcome.log);
    const [mode, elapsed, khz, incarnation] = outcome.values as bigint[];
    return {
      tscMode: Number(mode),
      elapsedNsec: elapsed!,
      gtscKhz: Number(khz),
      incarnation: Number(incarnation),
    };
  }

  // Events

  /**
   * Writes to CR3 as they happen: vmi_register_event(), vmi_events_listen() and vmi_clear_event(),
   * by an instance of its own, in a process of its own. Listening begins with the first `next()`.
   */
  cr3Writes(options: Cr3WriteOptions = {}): Cr3WriteStream {
    const { mode, ...rest } = this.#options;
    return new Cr3WriteStream(
      (signal) => openForEvents(this.#session, { ...rest, driver: mode, signal }),
      options,
    );
  }

  // Caches. All but the symbols' are emptied before every call as it is.

  /**
   * vmi_v2pcache_flush(). Without `dtb`, or with any (libvmi flushes nothing for a single table),
   * everything goes.
   */
  v2pcacheFlush(): void {
    this.#now('vmi_v2pcache_flush', [0xffff_ffff_ffff_ffffn]);
  }

  /** vmi_v2pcache_add(). */
  v2pcacheAdd(address: AddressLike, dtb: AddressLike, physical: AddressLike): void {
    this.#now('vmi_v2pcache_add', [toAddress(address), toAddress(dtb), toAddress(physical)]);
  }

  /** vmi_symcache_flush(). */
  symcacheFlush(): void {
    this.#now('vmi_symcache_flush');
  }

  /** vmi_symcache_add(). */
  symcacheAdd(base: AddressLike, pid: number, symbol: string, address: AddressLike): void {
    this.#now('vmi_symcache_add', [toAddress(base), pid, symbol, toAddress(address)]);
  }

  /** vmi_rvacache_flush(). */
  rvacacheFlush(): void {
    this.#now('vmi_rvacache_flush');
  }

  /** vmi_rvacache_add(). */
  rvacacheAdd(base: AddressLike, pid: number, rva: AddressLike, symbol: string): void {
    this.#now('vmi_rvacache_add', [toAddress(base), pid, toAddress(rva), symbol]);
  }

  /** vmi_pidcache_flush(). */
  pidcacheFlush(): void {
    this.#now('vmi_pidcache_flush');
  }

  /** vmi_pidcache_add(). */
  pidcacheAdd(pid: number, dtb: AddressLike): void {
    this.#now('vmi_pidcache_add', [pid, toAddress(dtb)]);
  }

  /** vmi_pagecache_flush(). */
  pagecacheFlush(): void {
    this.#now('vmi_pagecache_flush');
  }

  [inspect.custom](): string {
    return `Libvmi { ${this.#what}, libvmi ${this.version} at ${this.library} }`;
  }

  #error(code: VmiErrorCode, message: string, log = ''): VmiError {
    return new VmiError(code, withLog(`${this.#what}: ${message}`, log));
  }

  #run(
    name: string,
    args: NativeLibvmiArgument[],
    options: CallOptions,
  ): Promise<NativeLibvmiOutcome> {
    checkCall(options);
    return this.#session.call(name, args, {
      signal: options.signal,
      deadline: options.deadline,
      fresh: true,
    });
  }

  /** For calls that return a number and cannot fail. */
  async #value(name: string, args: NativeLibvmiArgument[], options: CallOptions): Promise<bigint> {
    return (await this.#run(name, args, options)).values[0] as bigint;
  }

  /** For calls that return a status and one number. */
  async #found(
    name: string,
    args: NativeLibvmiArgument[],
    options: CallOptions,
    code: VmiErrorCode,
    what: string,
  ): Promise<bigint> {
    const { failed, values, log } = await this.#run(name, args, options);
    if (failed) throw this.#error(code, what, log);
    return values[0] as bigint;
  }

  async #nonZero(
    name: string,
    args: NativeLibvmiArgument[],
    options: CallOptions,
    code: VmiErrorCode,
    what: string,
  ): Promise<bigint> {
    const value = await this.#found(name, args, options, code, what);
    if (value === 0n) throw this.#error(code, what);
    return value;
  }

  async #done(
    name: string,
    args: NativeLibvmiArgument[],
    options: CallOptions,
    what: string,
  ): Promise<void> {
    const { failed, log } = await this.#run(name, args, options);
    if (failed) throw this.#error('VMI_UNSUPPORTED', what, log);
  }

  async #text(
    name: string,
    args: NativeLibvmiArgument[],
    options: CallOptions,
    what: string,
    code: VmiErrorCode = 'VMI_UNSUPPORTED',
  ): Promise<string> {
    return this.#asText(await this.#run(name, args, options), what, code);
  }

  #now(name: string, args: NativeLibvmiArgument[] = []): NativeLibvmiOutcome {
    return this.#session.callNow(name, args);
  }

  #valueNow(name: string): bigint {
    return this.#now(name).values[0] as bigint;
  }

  #textNow(name: string, what: string): string {
    return this.#asText(this.#now(name), what, 'VMI_UNSUPPORTED');
  }

  #positive(name: string, what: string): bigint {
    const value = this.#valueNow(name);
    if (value === 0n) throw this.#error('VMI_UNSUPPORTED', `libvmi does not know ${what}`);
    return value;
  }

  #asText(outcome: NativeLibvmiOutcome, what: string, code: VmiErrorCode): string {
    const text = outcome.values[0];
    if (outcome.failed || typeof text !== 'string')
      throw this.#error(code, `libvmi has not got ${what}`, outcome.log);
    return text;
  }

  async #translated(
    name: string,
    address: bigint,
    args: NativeLibvmiArgument[],
    options: CallOptions,
  ): Promise<bigint> {
    const { failed, values } = await this.#run(name, args, options);
    // Physical page 0 holds the BIOS's tables: nothing of Linux is mapped there, and libvmi says 0
    // for failure.
    if (failed || values[0] === 0n) throw fault(address, 'virtual', 1, 0);
    return values[0] as bigint;
  }

  async #bytes(
    name: string,
    address: bigint,
    args: NativeLibvmiArgument[],
    length: number,
    space: 'physical' | 'virtual',
    options: CallOptions,
  ): Promise<Buffer> {
    const wanted = toLength(length);
    if (space === 'physical') this.#checkCertain(address, wanted);
    const outcome = await this.#run(name, [...args, wanted], options);
    const [bytes, reported] = outcome.values as [Buffer, bigint | null];
    // libvmi reports success for a short read, and success with nothing written.
    const got = reported === null || reported > BigInt(wanted) ? 0 : Number(reported);
    if (got < wanted) throw fault(address, space, wanted, got);
    return bytes;
  }

  async #loadPa(
    name: string,
    address: AddressLike,
    size: number,
    options: CallOptions,
  ): Promise<bigint> {
    this.#checkCertain(toAddress(address), size);
    const { failed, values } = await this.#run(name, [toAddress(address)], options);
    if (failed) throw fault(toAddress(address), 'physical', size, 0);
    return values[0] as bigint;
  }

  async #loadVa(
    name: string,
    address: AddressLike,
    pid: number,
    size: number,
    options: CallOptions,
  ): Promise<bigint> {
    const { failed, values } = await this.#run(name, [toAddress(address), pid], options);
    if (failed) throw fault(toAddress(address), 'virtual', size, 0);
    return values[0] as bigint;
  }

  #loadKsym(name: string, symbol: string, options: CallOptions): Promise<bigint> {
    return this.#found(
      name,
      [symbol],
      options,
      'VMI_SYMBOL',
      `libvmi cannot read at kernel symbol '${symbol}'`,
    );
  }

  async #string(
    start: bigint,
    options: StringOptions,
    read: (address: bigint, length: number) => Promise<Buffer>,
  ): Promise<string> {
    const limit = toLength(options.limit ?? DEFAULT_STRING_LIMIT, 1 << 20, 'limit');
    const parts: Buffer[] = [];
    let at = start;
    for (let left = limit; left > 0; ) {
      const length = Math.min(left, Number(PAGE_SIZE - (at % PAGE_SIZE)));
      const part = await read(at, length);
      const end = part.indexOf(0);
      parts.push(end < 0 ? part : part.subarray(0, end));
      if (end >= 0) break;
      at += BigInt(length);
      left -= length;
    }
    return Buffer.concat(parts).toString();
  }

  async #write(
    name: string,
    where: string,
    args: NativeLibvmiArgument[],
    bytes: Uint8Array,
    options: CallOptions,
  ): Promise<void> {
    const { failed, values, log } = await this.#run(name, [...args, bytes.length, bytes], options);
    const written = values[0] ?? 0n;
    if (failed || written !== BigInt(bytes.length)) {
      throw this.#error(
        'VMI_UNSUPPORTED',
        `libvmi wrote ${written} of ${bytes.length} bytes at ${where}`,
        log,
      );
    }
  }

  #store(
    name: string,
    where: string,
    args: NativeLibvmiArgument[],
    options: CallOptions,
  ): Promise<void> {
    return this.#done(name, args, options, `libvmi cannot write at ${where}`);
  }

  #pageMode(mode: bigint): LibvmiPageMode {
    // Numbered from 1 since "Nested support", which brought this call along.
    const known = PAGE_MODES.get(Number(mode) - (this.#session.nested ? 1 : 0));
    if (known === undefined)
      throw this.#error('VMI_UNSUPPORTED', "libvmi does not know the guest's paging mode");
    return known;
  }

  /** Where a live guest says so; a file's kernel is checked when it is found. */
  async #refuseFiveLevels(options: CallOptions): Promise<void> {
    if (this.mode === 'file') return;
    const { failed, values } = await this.#run('vmi_get_vcpureg', [REGISTERS.CR4, 0], options);
    if (!failed && ((values[0] as bigint) & CR4_LA57) !== 0n) refuseLevels(5);
  }

  /** libvmi takes an address for an offset, also where the hole below 4 GiB makes them differ. */
  #checkCertain(address: bigint, length: number): void {
    if (this.#certain === undefined || address + BigInt(length) <= this.#certain) return;
    throw this.#error(
      'VMI_UNSUPPORTED',
      `cannot tell where in the file ${length} bytes at ${hex(address)} are: libvmi takes addresses for offsets, and the RAM of a PC of this size has a hole below 4 GiB. attach() finds it and reads all of it; initOs({ kernel: libvmiKernel(guest.kernel) }) of a guest attached so, whose RAM is in one piece, lifts this`,
    );
  }

  /** libvmi's own page walk goes through the file as if its RAM were in one piece. */
  #proveFlat(config: LibvmiConfig): void {
    if (this.#certain === undefined) return;
    if (typeof config === 'object' && 'kernel' in config && config.kernel.flat) {
      this.#certain = undefined;
      return;
    }
    throw this.#error(
      'VMI_UNSUPPORTED',
      "libvmi's own page walk takes addresses for offsets in the file, and the RAM of a PC of this size has a hole below 4 GiB: use Guest's symbols and translations, which know of it",
    );
  }

  /** What libvmi has to be told so that it stays with the kernel's own page table. */
  async #anchor(options: CallOptions): Promise<[string, bigint][] | undefined> {
    const find = async (call: Promise<bigint>) => call.catch((error) => stop(error));
    const stop = (error: unknown) => {
      if (error instanceof VmiError && (error.code === 'VMI_BUSY' || error.code === 'VMI_ABORTED'))
        throw error;
      return undefined;
    };
    const table =
      (await find(this.translateKsym2v('init_top_pgt', options))) ??
      (await find(this.translateKsym2v('init_level4_pgt', options)));
    if (table === undefined) return undefined;
    const [physical, task, kaslr] = [
      await find(this.translateKv2p(table, options)),
      await find(this.getOffset('linux_init_task', options)),
      await find(this.getOffset('linux_kaslr', options)),
    ];
    if (physical === undefined || task === undefined || kaslr === undefined) return undefined;
    return [
      ['kpgd', physical],
      ['linux_init_task', task],
      ['linux_kaslr', kaslr],
    ];
  }
}

function contextArguments(context: LibvmiContext, address: AddressLike): NativeLibvmiArgument[] {
  return 'pid' in context
    ? [2, context.pid, toAddress(address)]
    : [1, toAddress(context.dtb), toAddress(address)];
}

function registerNumber(name: RegisterName): number {
  const number = REGISTERS[name];
  if (number === undefined) {
    throw new RangeError(
      `Expected register as one of ${Object.keys(REGISTERS).join(', ')} but received '${name}'`,
    );
  }
  return number;
}

/** libvmi says that a virtual address cannot be read, and no more. */
function fault(
  address: bigint,
  space: 'physical' | 'virtual',
  requested: number,
  transferred: number,
): VmiError {
  if (space === 'physical') {
    const first = address + BigInt(transferred);
    return new FaultError({
      address: first,
      space,
      cr3: undefined,
      requested,
      transferred,
      level: 0,
    });
  }
  const partly = transferred > 0 ? ` (${transferred} bytes were read before it)` : '';
  const first = hex(address + BigInt(transferred));
  return new VmiError(
    'VMI_FAULT',
    `cannot read ${requested} bytes at ${first} (virtual): libvmi finds no page${partly}`,
  );
}
