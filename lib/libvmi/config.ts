import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { type ConfEntry, parseConf } from '../kernel/profile/libvmi-conf.js';

/** Keys and values of an entry of libvmi.conf: `ostype`, `sysmap`, `linux_tasks`, `kpgd`, … */
export type LibvmiTable = Readonly<Record<string, string | bigint | number>>;

/**
 * What libvmi is told about the guest's kernel.
 *
 * Entries and files in libvmi.conf's form are parsed here and passed as a table: libvmi's own parser has global state and
 * cannot take names such as `10`, `my vm` or `web:1`.
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
  /** A kernel that was found with no profile: symbols, offsets, page table. */
  | { readonly kernel: Kernel }
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
 * @throws {VmiError} `VMI_ATTACH`: a file or an entry that is none; `VMI_UNSUPPORTED`: a kernel with 5-level paging
 */
export function prepareConfig(config: LibvmiConfig): PreparedConfig {
  const nothing = () => {};
  if (config === 'global')
    return { kind: 'global', value: undefined, anchored: false, release: nothing };
  if ('json' in config)
    return { kind: 'json', value: config.json, anchored: false, release: nothing };
  if ('kernel' in config) return kernelConfig(config.kernel);
  const table =
    'table' in config ? Object.entries(config.table) : [...entryOf(config).values.entries()];
  const value = table.map(([key, one]): [string, bigint | string] => [
    key,
    typeof one === 'number' ? BigInt(one) : one,
  ]);
  return {
    kind: 'table',
    value,
    anchored: value.some(([key]) => key === 'kpgd'),
    release: nothing,
  };
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
 * libvmi's configuration for a kernel that was found with no profile. Its page table is the kernel's own, not what a vCPU
 * happened to have loaded; symbols stand where they are in the running guest, so that the KASLR offset is 0.
 */
function kernelConfig(kernel: Kernel): PreparedConfig {
  refuseLevels(kernel.levels);
  const { symbols, types } = kernel;
  const line = (address: bigint, type: string, name: string) =>
    `${address.toString(16).padStart(16, '0')} ${type} ${name}\n`;
  // libvmi reads from the top to the first line that fits, and asks for this one when it starts.
  const lines = [line(symbols.address('init_task'), 'D', 'init_task')];
  for (const { name, address, type } of symbols.entries()) lines.push(line(address, type, name));
  // libvmi opens the file anew for every symbol; without a name it cannot stay behind.
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-'));
  let fd: number;
  try {
    writeFileSync(join(folder, 'System.map'), lines.join(''));
    fd = openSync(join(folder, 'System.map'), 'r');
  } finally {
    rmSync(folder, { recursive: true });
  }
  const offset = (struct: string, member: string) => BigInt(types.offset(struct, member));
  const value: [string, bigint | string][] = [
    ['ostype', 'Linux'],
    ['pagemode', 'VMI_PM_IA32E'],
    // By number: libvmi may run in another process.
    ['sysmap', `/proc/${process.pid}/fd/${fd}`],
    ['linux_tasks', offset('task_struct', 'tasks')],
    ['linux_mm', offset('task_struct', 'mm')],
    ['linux_pid', offset('task_struct', 'pid')],
    ['linux_name', offset('task_struct', 'comm')],
    ['linux_pgd', offset('mm_struct', 'pgd')],
    ['linux_init_task', symbols.address('init_task')],
    ['kpgd', kernel.root],
  ];
  return { kind: 'table', value, anchored: true, release: () => closeSync(fd) };
}

/**
 * libvmi walks 4 levels whatever the guest has (libvmi/arch/intel.c), and gives wrong addresses for 5.
 * @throws {VmiError} `VMI_UNSUPPORTED`
 */
export function refuseLevels(levels: number): void {
  if (levels <= 4) return;
  throw new VmiError(
    'VMI_UNSUPPORTED',
    "the guest has 5-level paging, which libvmi's own page walk gets wrong: use Guest's symbols and translations, which need physical reads only, or boot the guest with no5lvl",
  );
}
