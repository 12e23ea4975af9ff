import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { basename, resolve } from 'node:path';
import { exportProfile, PROFILE_FORMATS, type ProfileFormat } from '../export/profile.js';
import { qemuProcesses } from '../memory/qemu/process.js';
import { checkOptions, checkText, describe, type OptionNames } from '../options.js';
import { parseTarget } from '../target.js';
import { version } from '../version.js';
import { checkGuest } from './check-guest.js';
import type { Guest } from './guest.js';

/** What a profile says beside the kernel: see {@link writeProfile}. */
export interface ProfileOptions {
  /**
   * `libvmi-conf`: the guest's name for libvmi; by default the domain's, or that of the image's
   * file.
   */
  readonly name?: string | undefined;
  /**
   * `libvmi-conf`: path of the System.map that the entry names; without one, libvmi knows no
   * symbols.
   */
  readonly sysmap?: string | undefined;
}

/** Where a profile goes: a stream of Node's will do. */
export interface TextSink {
  write(chunk: string | Uint8Array): unknown;
  /** Whether the next piece waits for `drain`. */
  readonly writableNeedDrain?: boolean;
  once?(event: 'drain', call: () => void): unknown;
}

const NAMES: OptionNames<ProfileOptions> = { name: true, sysmap: true };
/** Characters that are written at once. */
const PIECE = 1 << 20;

/**
 * Writes what was found of a guest's kernel in a form that other tools read; all but `vmcoreinfo`
 * and `btf` are read by `loadProfile`, too.
 * Symbols stand at the addresses they were linked to, as libvmi and Volatility want them: both add
 * what KASLR moved the kernel by.
 *
 * @param format `libvmi-conf`: an entry of libvmi.conf; `system-map`: every symbol; `isf`: a symbol
 *   file of Volatility 3, some 30 MB; `json`: facts, offsets and symbols for scripts;
 *   `vmcoreinfo`: what the kernel says of itself for readers of dumps; `btf`: its types, as in
 *   `/sys/kernel/btf/vmlinux`
 * @param to path of a file, which is written anew, or a stream, which is left open
 * @throws {TypeError} no guest, another format, neither path nor stream, or an option that the
 *   format does not take
 * @throws {Error} of `node:fs`, with its `code`: the file cannot be written (`ENOENT`, `EACCES`)
 * @throws {VmiError} `VMI_UNSUPPORTED`: libvmi could not read the name or the path; `VMI_SYMBOL`,
 *   `VMI_TYPE`: this kernel lacks what the form is made of
 * @example
 * await writeProfile(guest, 'isf', 'symbols/linux/guest.json');
 */
export async function writeProfile(
  guest: Guest,
  format: ProfileFormat,
  to: string | TextSink,
  options: ProfileOptions = {},
): Promise<void> {
  checkGuest(guest);
  checkFormat(format, options);
  if (typeof to !== 'string' && typeof (to as TextSink | null | undefined)?.write !== 'function')
    throw new TypeError(
      `Expected to as the path of a file or a stream to write to but received ${describe(to)}`,
    );
  const pieces = exportProfile(guest.kernel, format, {
    name: options.name ?? (format === 'libvmi-conf' ? nameOf(guest.target) : ''),
    sysmap: options.sysmap === undefined ? undefined : resolve(options.sysmap),
    version: version(),
  });
  if (typeof to !== 'string') return pour(pieces, to);
  const file = createWriteStream(to);
  await once(file, 'open');
  try {
    await pour(pieces, file);
  } finally {
    file.end();
    await once(file, 'close');
  }
}

/** @throws {TypeError} */
function checkFormat(format: ProfileFormat, options: ProfileOptions): void {
  if (!PROFILE_FORMATS.includes(format)) {
    const all = PROFILE_FORMATS.join(', ');
    throw new TypeError(`Expected format as one of ${all} but received ${describe(format)}`);
  }
  checkOptions(options, NAMES);
  checkText(options.name, 'name');
  checkText(options.sysmap, 'sysmap');
  const [given] = Object.entries(options).find(([, value]) => value !== undefined) ?? [];
  if (format !== 'libvmi-conf' && given !== undefined)
    throw new TypeError(`Expected ${given} with format libvmi-conf only, not with ${format}`);
}

/** Few writes, none of them large, and no more of the text in memory than the reader is behind. */
async function pour(pieces: Iterable<string | Uint8Array>, sink: TextSink): Promise<void> {
  let text = '';
  for (const piece of pieces) {
    if (typeof piece === 'string') {
      text += piece;
      if (text.length < PIECE) continue;
      sink.write(text);
      text = '';
    } else sink.write(piece);
    if (sink.writableNeedDrain === true)
      await new Promise<void>((resolve) => sink.once?.('drain', resolve));
  }
  if (text !== '') sink.write(text);
}

/** What libvmi calls the guest: the domain's name, or the file's without its folder. */
function nameOf(text: string): string {
  const memory = text.startsWith('memory:') || text.startsWith('qmp:');
  const target = memory ? undefined : parseTarget(text);
  if (target === undefined) return 'guest';
  if ('pid' in target)
    return qemuProcesses().find(({ pid }) => pid === target.pid)?.name || 'guest';
  // A libvirt or Xen domain, or a file.
  return basename('path' in target ? target.path : 'name' in target ? target.name : 'guest');
}
