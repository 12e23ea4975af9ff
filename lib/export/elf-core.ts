// A minimal ELF core, for other tools: the pages that were read of a guest, the page tables that
// lead to them, and VMCOREINFO. The form is that of memory/image/elf-core.ts, which reads it too.
import { PAGE_SIZE, wrap } from '../address.js';
import type { Kernel } from '../kernel/kernel.js';
import { vmcoreinfoText } from './vmcoreinfo.js';

const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** Program headers whose number the ELF header can hold. */
const MAX_HEADERS = 65_534;
/** What one entry of a page directory maps: all pages of it have the same tables above them. */
const LARGE_PAGE = 21n;

/** Pages by number. */
export interface CorePages {
  readonly numbers: readonly number[];
  page(number: number): Uint8Array | undefined;
}

/**
 * Makes the core. The page tables are read now, so the guest has to be there still.
 * @throws {RangeError} the pages are in more pieces than a core can have
 */
export function elfCore(kernel: Kernel, pages: CorePages): Buffer {
  const all = new Map<number, Uint8Array>();
  for (const number of pages.numbers) all.set(number, pages.page(number)!);
  addPageTables(kernel, all);
  const { image } = kernel;
  const isImage = (number: number) => {
    const from = BigInt(number) * BigInt(PAGE_SIZE) - image.physical;
    return from >= 0n && from < image.length;
  };
  const runs = runsOf(
    [...all.keys()].sort((a, b) => a - b),
    isImage,
  );
  if (runs.length > MAX_HEADERS)
    throw new RangeError(
      `Expected pages in at most ${MAX_HEADERS} pieces but there are ${runs.length}`,
    );
  const note = vmcoreinfoNote(kernel);
  const headers = ELF_HEADER + PROGRAM_HEADER * (runs.length + 1);
  let offset = Math.ceil((headers + note.length) / PAGE_SIZE) * PAGE_SIZE;
  const parts: Buffer[] = [
    elfHeader(runs.length + 1),
    program(PT_NOTE, headers, 0n, 0n, note.length),
  ];
  for (const { first, count } of runs) {
    const physical = BigInt(first) * BigInt(PAGE_SIZE);
    // Tools find the kernel's page table in its image, before they can walk any.
    const inImage = wrap(image.virtual + (physical - image.physical));
    const virtual = isImage(first) ? inImage : wrap(kernel.pageOffset + physical);
    parts.push(program(PT_LOAD, offset, virtual, physical, count * PAGE_SIZE));
    offset += count * PAGE_SIZE;
  }
  parts.push(note);
  const head = Buffer.concat(parts);
  const padding = Buffer.alloc((PAGE_SIZE - (head.length % PAGE_SIZE)) % PAGE_SIZE);
  const bytes = runs.flatMap(({ first, count }) =>
    Array.from({ length: count }, (_, i) => all.get(first + i)!),
  );
  return Buffer.concat([head, padding, ...bytes]);
}

/** The tables that lead to each page where the kernel has it: in its image and its direct map. */
function addPageTables(kernel: Kernel, all: Map<number, Uint8Array>): void {
  const { image, memory } = kernel;
  const seen = new Set<bigint>();
  const add = (address: bigint) => {
    const region = address >> LARGE_PAGE;
    if (seen.has(region)) return;
    seen.add(region);
    for (const { entryAddress } of memory.walk(address).steps) {
      const number = Number(entryAddress / BigInt(PAGE_SIZE));
      if (all.has(number)) continue;
      const page = new Uint8Array(PAGE_SIZE);
      const start = BigInt(number) * BigInt(PAGE_SIZE);
      if (memory.physical.readInto(start, page) === PAGE_SIZE) all.set(number, page);
    }
  };
  for (const number of [...all.keys()]) {
    const physical = BigInt(number) * BigInt(PAGE_SIZE);
    add(wrap(kernel.pageOffset + physical));
    const inImage = physical - image.physical;
    if (inImage >= 0n && inImage < image.length) add(wrap(image.virtual + inImage));
  }
}

function runsOf(
  numbers: readonly number[],
  isImage: (number: number) => boolean,
): { first: number; count: number }[] {
  const runs: { first: number; count: number }[] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    const joins = last !== undefined && last.first + last.count === number;
    if (joins && isImage(last.first) === isImage(number)) last.count++;
    else runs.push({ first: number, count: 1 });
  }
  return runs;
}

function elfHeader(programs: number): Buffer {
  const header = Buffer.alloc(ELF_HEADER);
  header.write('\x7fELF\x02\x01\x01', 'latin1');
  header.writeUInt16LE(4, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(ELF_HEADER), 32);
  header.writeUInt16LE(ELF_HEADER, 52);
  header.writeUInt16LE(PROGRAM_HEADER, 54);
  header.writeUInt16LE(programs, 56);
  return header;
}

function program(
  type: number,
  offset: number,
  virtual: bigint,
  physical: bigint,
  length: number,
): Buffer {
  const header = Buffer.alloc(PROGRAM_HEADER);
  header.writeUInt32LE(type, 0);
  header.writeUInt32LE(7, 4);
  header.writeBigUInt64LE(BigInt(offset), 8);
  header.writeBigUInt64LE(virtual, 16);
  header.writeBigUInt64LE(physical, 24);
  header.writeBigUInt64LE(BigInt(length), 32);
  header.writeBigUInt64LE(BigInt(length), 40);
  return header;
}

function vmcoreinfoNote(kernel: Kernel): Buffer {
  const text = vmcoreinfoText(kernel);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(11, 0);
  head.writeUInt32LE(text.length, 4);
  const padding = Buffer.alloc((4 - (text.length % 4)) % 4);
  return Buffer.concat([head, Buffer.from('VMCOREINFO\0\0'), text, padding]);
}
