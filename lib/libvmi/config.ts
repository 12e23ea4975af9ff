import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VmiError } from '../errors.js';
import { type ConfEntry, parseConf } from './conf.js';

/** Keys and values of an entry of libvmi.conf: `ostype`, `sysmap`, `linux_tasks`, `kpgd`, … */
export type LibvmiTable = Readonly<Record<string, string | bigint | number>>;

/**
 * What libvmi can be told of a kernel that somebody else has found. `libvmiKernel(guest.kernel)`
 * makes it.
 */
export interface LibvmiKernel {
  /** Offsets and addresses by libvmi's names; no `sysmap`. */
  readonly table: LibvmiTable;
  /** Symbols at their addresses in the running guest, in any order. */
  readonly symbols: Iterable<{
    readonly name: string;
    readonly address: bigint;
    /** One letter, as in a System.map. */
    readonly type: string;
  }>;
  /** Levels of its page table, 4 or 5. */
  readonly levels: number;
  /**
   * Whether RAM is in one piece from physical address 0 on: only then are libvmi's addresses of a
   * file right.
   */
  readonly flat: boolean;
}

/**
 * What libvmi is told about the guest's kernel.
 *
 * Entries and files in libvmi.conf's form are parsed here and passed as a table: libvmi's own
 * parser has global state and cannot take names such as `10`, `my vm` or `web:1`.
 */
export type LibvmiConfig =
  /** A table, passed as a GHashTable with numbers 8 bytes wide. */
  | { readonly table: LibvmiTable }
  /** What stands between the braces of an entry, with or without them. */
  | { readonly string: string }
  /** A file in libvmi.conf's form; `entry` may be left out when it has one only. */
  | { readonly file: string; readonly entry?: string | undefined }
  /** A Rekall or Volatility 3 profile. */
  | { readonly json: string }
  /**
   * A kernel that was found with no profile, as `libvmiKernel` gives it: symbols, offsets, page
   * table.
   */
  | { readonly kernel: LibvmiKernel }
  /** libvmi looks for its own libvmi.conf, by the guest's name. */
  | 'global';

/** A configuration as the addon takes it. */
export interface PreparedConfig {
  readonly kind: 'table' | 'json' | 'global';
  readonly value: [string, bigint | string][] | string | undefined;
  /** Whether the table says where the kernel's page table is. */
  readonly anchored: boolean;
  /** Removes what was made for libvmi. */
  release(): void;
}

/**
 * Turns a configuration into what libvmi takes.
 * @throws {VmiError} `VMI_ATTACH`: a file or an entry that is none; `VMI_UNSUPPORTED`: a kernel
 *   with 5-level paging
 */
export function prepareConfig(config: LibvmiConfig): PreparedConfig {
  const nothing = () => {};
  if (config === 'global')
    return { kind: 'global', value: undefined, anchored: false, release: nothing };
  if ('json' in config)
    return { kind: 'json', value: config.json, anchored: false, release: nothing };
  if ('kernel' in config) return kernelConfig(config.kernel);
  const value = 'table' in config ? pairsOf(config.table) : [...entryOf(config).values.entries()];
  return { kind: 'table', value, anchored: hasAnchor(value), release: nothing };
}

function entryOf(
  config:
    | { readonly string: string }
    | { readonly file: string; readonly entry?: string | undefined },
): ConfEntry {
  if ('string' in config) {
    const text = config.string.trim();
    return parseConf(
      `guest ${text.startsWith('{') ? text : `{ ${text} }`}`,
      'the configuration',
    )[0]!;
  }
  const { file, entry } = config;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `cannot read ${file}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const entries = parseConf(text, file);
  const found =
    entry === undefined && entries.length === 1
      ? entries[0]
      : entries.find(({ name }) => name === entry);
  if (found !== undefined) return found;
  const names = entries.map(({ name }) => name).join(', ') || 'none';
  throw new VmiError(
    'VMI_ATTACH',
    `${file}: ${entry === undefined ? 'name an entry' : `no entry '${entry}'`} (it has ${names})`,
  );
}

/**
 * libvmi's configuration for a kernel that was found with no profile: its table, and its symbols in
 * a file of the form that libvmi reads.
 */
function kernelConfig({ table, symbols, levels }: LibvmiKernel): PreparedConfig {
  refuseLevels(levels);
  const line = (address: bigint, type: string, name: string) =>
    `${address.toString(16).padStart(16, '0')} ${type} ${name}\n`;
  // libvmi reads from the top to the first line that fits, and asks for this one when it starts.
  let first = '';
  let text = '';
  for (const { name, address, type } of symbols) {
    if (name === 'init_task') first = line(address, type, name);
    text += line(address, type, name);
  }
  const fd = unnamedFile('System.map', first + text);
  const value = [
    ...pairsOf(table),
    // By number: libvmi may run in another process.
    ['sysmap', `/proc/${process.pid}/fd/${fd}`] as [string, string],
  ];
  return { kind: 'table', value, anchored: hasAnchor(value), release: () => closeSync(fd) };
}

/** libvmi opens its file anew for every symbol; without a name it cannot stay behind. */
function unnamedFile(name: string, text: string): number {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-'));
  try {
    writeFileSync(join(folder, name), text);
    return openSync(join(folder, name), 'r');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A table as the addon takes it. */
function pairsOf(table: LibvmiTable): [string, bigint | string][] {
  return Object.entries(table).map(([key, one]) => [
    key,
    typeof one === 'number' ? BigInt(one) : one,
  ]);
}

/** Whether a table says where the kernel's page table is. */
function hasAnchor(table: readonly (readonly [string, bigint | string])[]): boolean {
  return table.some(([key]) => key === 'kpgd');
}

/**
 * libvmi walks 4 levels whatever the guest has (libvmi/arch/intel.c), and gives wrong addresses for
 * 5.
 * @throws {VmiError} `VMI_UNSUPPORTED`
 */
export function refuseLevels(levels: number): void {
  if (levels <= 4) return;
  throw new VmiError(
    'VMI_UNSUPPORTED',
    "the guest has 5-level paging, which libvmi's own page walk gets wrong: use Guest's symbols and translations, which need physical reads only, or boot the guest with no5lvl",
  );
}
