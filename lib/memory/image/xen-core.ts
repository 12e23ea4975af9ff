// A core that Xen's tools write (xl dump-core, virsh dump without --memory-only): ELF with
// sections, and no program headers.
//
// .note.Xen    header note (type 0x2000002): magic 0xF00FEBED (PV) or 0xF00FEBEE (HVM, PVH) 0,
//              vCPUs 8,
//              pages 16, page size 24
// .xen_pfn     HVM and PVH: the page frame number of each page, 8 bytes each
// .xen_p2m     PV: pairs of page frame number and machine frame number
// .xen_pages   the pages, in the same order
//
// Xen docs/misc/dump-core-format.txt.
import { hex } from '../../errors.js';
import type { DumpContent, DumpRange } from './content.js';
import { elfNotes } from './elf-notes.js';
import { type Bytes, exactly, type ImageFile } from './file.js';

const PAGE = 4096n;
const SECTION_SIZE = 64;
const MAX_SECTIONS = 256;
const MAX_NOTES = 64 << 20;
const XEN_HEADER = 0x200_0002;
const MAGIC_PV = 0xf00f_ebedn;
const MAGIC_HVM = 0xf00f_ebeen;
/** Bytes of page frame numbers read at a time. */
const CHUNK = 8 << 17;
const NO_PFN = 0xffff_ffff_ffff_ffffn;
const MAX_PFN = 1n << 40n;

interface Section {
  readonly offset: bigint;
  readonly size: bigint;
}

/** Whether an ELF file has the sections of a core of Xen. @param head its first 64 bytes */
export function isXenCore(file: ImageFile, head: Buffer): boolean {
  if (head.length < 64 || head.readUInt16LE(56) !== 0) return false;
  return sections(file, head).has('.xen_pages');
}

/**
 * Reads a core of Xen. Pages are taken by their page frame numbers, which is what the guest itself
 * calls physical.
 * @throws {VmiError} `VMI_ATTACH`: truncated, or of a PV guest
 */
export function readXenCore(file: ImageFile): DumpContent {
  const all = sections(file, exactly(file, file, 0n, 64, 'ELF header'));
  const pages = all.get('.xen_pages')!;
  const header = xenHeader(file, all.get('.note.Xen'));
  const pfns = all.get('.xen_pfn');
  if (pfns === undefined || (header?.magic === MAGIC_PV && all.has('.xen_p2m'))) {
    throw file.fail(
      "it is a core of a PV guest of Xen, whose page tables hold machine addresses: attach to the guest itself with 'xen:NAME'",
    );
  }
  const count = pfns.size / 8n;
  if (pages.size / PAGE < count) throw file.fail('it has fewer pages than page frame numbers');
  if (pages.offset + count * PAGE > file.size)
    throw file.fail('it is truncated within its pages. Copy it again, whole');
  return { format: 'core of Xen', ranges: runs(file, pfns, pages.offset, count), registers: [] };
}

function sections(file: ImageFile, head: Buffer): Map<string, Section> {
  const offset = head.readBigUInt64LE(40);
  const size = head.readUInt16LE(58);
  const count = head.readUInt16LE(60);
  const names = head.readUInt16LE(62);
  const found = new Map<string, Section>();
  if (size !== SECTION_SIZE || count > MAX_SECTIONS || names >= count) return found;
  const table = file.read(offset, count * SECTION_SIZE);
  if (table.length < count * SECTION_SIZE) return found;
  const section = (i: number): Section => ({
    offset: table.readBigUInt64LE(i * SECTION_SIZE + 24),
    size: table.readBigUInt64LE(i * SECTION_SIZE + 32),
  });
  const strings = section(names);
  const text = file.read(strings.offset, strings.size > 65_536n ? 65_536 : Number(strings.size));
  for (let i = 0; i < count; i++) {
    const at = table.readUInt32LE(i * SECTION_SIZE);
    const name = text.toString('latin1', at, at + 32).replace(/\0.*$/s, '');
    found.set(name, section(i));
  }
  return found;
}

function xenHeader(file: Bytes, note: Section | undefined): { magic: bigint } | undefined {
  if (note === undefined || note.size > BigInt(MAX_NOTES)) return undefined;
  const header = elfNotes(file.read(note.offset, Number(note.size))).find(
    ({ name, type }) => name === 'Xen' && type === XEN_HEADER,
  );
  if (header === undefined || header.descriptor.length < 32) return undefined;
  const magic = header.descriptor.readBigUInt64LE(0);
  return magic === MAGIC_PV || magic === MAGIC_HVM ? { magic } : undefined;
}

/** Neighbouring page frames whose pages are neighbours in the file are one run. */
function runs(file: ImageFile, pfns: Section, pagesAt: bigint, count: bigint): DumpRange[] {
  const ranges: { physical: bigint; length: bigint; offset: bigint }[] = [];
  for (let at = 0n; at < count * 8n; at += BigInt(CHUNK)) {
    const rest = count * 8n - at;
    const length = rest < BigInt(CHUNK) ? Number(rest) : CHUNK;
    const numbers = exactly(file, file, pfns.offset + at, length, 'page frame numbers');
    for (let i = 0; i < length; i += 8) {
      const pfn = numbers.readBigUInt64LE(i);
      if (pfn === NO_PFN) continue;
      if (pfn >= MAX_PFN) throw file.fail(`it has a page frame number of ${hex(pfn)}`);
      const offset = pagesAt + ((at + BigInt(i)) / 8n) * PAGE;
      const last = ranges.at(-1);
      const follows =
        last !== undefined &&
        last.physical + last.length === pfn * PAGE &&
        last.offset + last.length === offset;
      if (follows) last.length += PAGE;
      else ranges.push({ physical: pfn * PAGE, length: PAGE, offset });
    }
  }
  return ranges;
}
