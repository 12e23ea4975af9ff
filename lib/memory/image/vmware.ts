// Memory of a VMware guest: NAME.vmem has the bytes, NAME.vmss or NAME.vmsn says where they belong.
//
// header   magic 0xbed2bed0, 0xbad1bad1, 0xbed2bed2 or 0xbed3bed3 at 0, groups 8 (little-endian)
// group    name (64 bytes), where its tags are (8), their length (8); 80 bytes each from 12 on
// tag      flags, length of the name, the name, (flags >> 6) indices of 4 bytes, the value: flags &
//          63
//          bytes; both 0: the end. 62 and 63 are for what is longer: its length stands there
//          instead
//
// Group 'memory': regionsCount, and for each region regionPPN (first page frame), regionPageNum
// (its page in the .vmem) and regionSize (pages), 4 bytes each. Without regions RAM is in one
// piece. As Volatility's framework/layers/vmware.py reads it; VMware publishes nothing.
import { existsSync } from 'node:fs';
import type { DumpContent, DumpRange } from './content.js';
import { exactly, ImageFile } from './file.js';

const MAGICS: ReadonlySet<number> = new Set([0xbed2_bed0, 0xbad1_bad1, 0xbed2_bed2, 0xbed3_bed3]);
const GROUP = 80;
const MAX_GROUPS = 4096;
const MAX_TAGS = 4 << 20;
const MAX_REGIONS = 1024;
const PAGE = 4096n;

/** Whether the file starts like the state of a VMware guest. */
export function isVmwareState(head: Buffer): boolean {
  return head.length >= 12 && MAGICS.has(head.readUInt32LE(0));
}

/** The state that belongs to a .vmem, by its name; `undefined` where there is none. */
export function vmwareStateOf(path: string): string | undefined {
  if (!path.endsWith('.vmem')) return undefined;
  const base = path.slice(0, -'.vmem'.length);
  return ['.vmss', '.vmsn'].map((end) => base + end).find((state) => existsSync(state));
}

/**
 * Reads where the RAM of a .vmem belongs.
 * @returns `undefined` where the state has no regions: RAM is in one piece
 * @throws {VmiError} `VMI_ATTACH`: the state is broken
 */
export function readVmware(memory: ImageFile, statePath: string): DumpContent | undefined {
  const state = new ImageFile(statePath);
  try {
    const tags = memoryTags(state);
    const count = tags.get('regionsCount') ?? 0;
    if (count === 0) return undefined;
    if (count > MAX_REGIONS) throw state.fail(`it has ${count} regions of memory`);
    const ranges: DumpRange[] = [];
    for (let i = 0; i < count; i++) {
      const [ppn, page, size] = ['regionPPN', 'regionPageNum', 'regionSize'].map((name) =>
        tags.get(`${name}[${i}]`),
      );
      if (ppn === undefined || page === undefined || size === undefined)
        throw state.fail(`it does not say where region ${i} of memory is`);
      const offset = BigInt(page) * PAGE;
      const length = BigInt(size) * PAGE;
      const rest = memory.size > offset ? memory.size - offset : 0n;
      const held = rest < length ? rest : length;
      ranges.push({ physical: BigInt(ppn) * PAGE, length, offset, held });
    }
    return { format: 'VMware memory', ranges, registers: [] };
  } finally {
    state.close();
  }
}

/** Numbers of the group 'memory', by name and index. */
function memoryTags(state: ImageFile): Map<string, number> {
  const head = exactly(state, state, 0n, 12, 'header');
  if (!isVmwareState(head)) throw state.fail('it is no state of a VMware guest');
  const count = head.readUInt32LE(8);
  if (count > MAX_GROUPS) throw state.fail(`it claims ${count} groups`);
  const groups = exactly(state, state, 12n, count * GROUP, 'groups');
  for (let at = 0; at < groups.length; at += GROUP) {
    const name = groups.toString('latin1', at, at + 64).replace(/\0.*$/s, '');
    if (name !== 'memory') continue;
    return readTags(state.read(groups.readBigUInt64LE(at + 64), MAX_TAGS));
  }
  throw state.fail("it has no group 'memory'");
}

function readTags(bytes: Buffer): Map<string, number> {
  const tags = new Map<string, number>();
  for (let at = 0; at + 2 <= bytes.length; ) {
    const flags = bytes[at]!;
    const nameLength = bytes[at + 1]!;
    if (flags === 0 && nameLength === 0) break;
    const name = bytes.toString('latin1', at + 2, at + 2 + nameLength);
    at += 2 + nameLength;
    let index = '';
    for (let i = 0; i < flags >> 6 && at + 4 <= bytes.length; i++, at += 4)
      index += `[${bytes.readUInt32LE(at)}]`;
    const length = flags & 63;
    // What is longer is not of the numbers, which come first.
    if (length >= 62) break;
    if (length === 4 && at + 4 <= bytes.length) tags.set(name + index, bytes.readUInt32LE(at));
    at += length;
  }
  return tags;
}
