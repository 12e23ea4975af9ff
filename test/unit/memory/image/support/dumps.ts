import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { openImage } from '../../../../../lib/memory/image/image.js';
import type { PhysicalMemory } from '../../../../../lib/memory/physical-memory.js';

export const PAGE = 4096;

/**
 * A guest to dump: runs of RAM as page frame numbers, and what each page holds; `undefined`: left
 * out of the dump.
 */
export interface Ram {
  readonly runs: readonly { readonly first: number; readonly count: number }[];
  page(pfn: number): Uint8Array | undefined;
}

/** A page that says which one it is. */
export function pageOf(pfn: number): Buffer {
  const page = Buffer.alloc(PAGE);
  for (let at = 0; at < PAGE; at += 64) page.writeUInt32LE(pfn * 1000 + at, at);
  return page;
}

export function* pfns({ runs }: Ram): Generator<number> {
  for (const { first, count } of runs) for (let i = 0; i < count; i++) yield first + i;
}

/** A folder of one test file, with what it wrote. */
export class DumpFolder {
  readonly path = mkdtempSync(join(tmpdir(), 'vmi-dumps-'));
  readonly #opened: PhysicalMemory[] = [];
  #written = 0;

  write(bytes: Uint8Array, name = `dump-${this.#written++}`): string {
    const path = join(this.path, name);
    writeFileSync(path, bytes);
    return path;
  }

  /** Opens a dump as its first candidate. */
  async open(bytes: Uint8Array, name?: string): Promise<PhysicalMemory> {
    const source = await openImage(this.write(bytes, name));
    const memory = source.candidates[0]!.open();
    await source.close();
    this.#opened.push(memory);
    return memory;
  }

  async remove(): Promise<void> {
    for (const memory of this.#opened) await memory.close();
    rmSync(this.path, { recursive: true });
  }
}

/** One note of an ELF file. */
export function elfNote(name: string, type: number, descriptor: Uint8Array): Buffer {
  const padded = (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(name.length + 1, 0);
  head.writeUInt32LE(descriptor.length, 4);
  head.writeUInt32LE(type, 8);
  return Buffer.concat([head, padded(Buffer.from(`${name}\0`)), padded(descriptor)]);
}

/** A PT_LOAD segment. */
export interface Load {
  readonly physical: bigint;
  readonly bytes: Uint8Array;
  /** p_memsz; default: of the bytes. */
  readonly length?: bigint;
  readonly virtual?: bigint;
}

export function elfCore(loads: readonly Load[], notes: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(64);
  head.write('\x7fELF\x02\x01\x01', 'latin1');
  head.writeUInt16LE(4, 16);
  head.writeUInt16LE(62, 18);
  head.writeBigUInt64LE(64n, 32);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(loads.length + 1, 56);
  const headers: Buffer[] = [];
  let offset = 64 + 56 * (loads.length + 1);
  const add = (type: number, load: Load) => {
    const header = Buffer.alloc(56);
    header.writeUInt32LE(type, 0);
    header.writeBigUInt64LE(BigInt(offset), 8);
    header.writeBigUInt64LE(load.virtual ?? 0n, 16);
    header.writeBigUInt64LE(load.physical, 24);
    header.writeBigUInt64LE(BigInt(load.bytes.length), 32);
    header.writeBigUInt64LE(load.length ?? BigInt(load.bytes.length), 40);
    headers.push(header);
    offset += load.bytes.length;
  };
  add(4, { physical: 0n, bytes: notes });
  for (const load of loads) add(1, load);
  return Buffer.concat([head, ...headers, notes, ...loads.map(({ bytes }) => bytes)]);
}

/**
 * As `makedumpfile -E` writes it: a segment ends with pages that are left out, p_filesz less than
 * p_memsz.
 */
export function elfOf(ram: Ram): Buffer {
  const loads: { physical: bigint; pages: Uint8Array[]; count: number }[] = [];
  for (const pfn of pfns(ram)) {
    const page = ram.page(pfn);
    const last = loads.at(-1);
    const follows = last !== undefined && Number(last.physical) / PAGE + last.count === pfn;
    const fits = follows && (page === undefined || last.count === last.pages.length);
    const load = fits ? last : { physical: BigInt(pfn * PAGE), pages: [], count: 0 };
    if (load !== last) loads.push(load);
    if (page !== undefined) load.pages.push(page);
    load.count++;
  }
  return elfCore(
    loads.map(({ physical, pages, count }) => ({
      physical,
      bytes: Buffer.concat(pages),
      length: BigInt(count * PAGE),
    })),
  );
}

export function limeOf(ram: Ram): Buffer {
  return Buffer.concat(
    ram.runs.flatMap(({ first, count }) => {
      const header = Buffer.alloc(32);
      header.writeUInt32LE(0x4c69_4d45, 0);
      header.writeUInt32LE(1, 4);
      header.writeBigUInt64LE(BigInt(first * PAGE), 8);
      header.writeBigUInt64LE(BigInt((first + count) * PAGE - 1), 16);
      const pages = Array.from(
        { length: count },
        (_, i) => ram.page(first + i) ?? Buffer.alloc(PAGE),
      );
      return [header, ...pages];
    }),
  );
}

/**
 * Ways to pack a page, by the flag of a kdump. What has no packer here is stored as its format
 * allows, all literal.
 */
export const PACK: Readonly<Record<number, (page: Uint8Array) => Uint8Array>> = {
  0: (page) => page,
  1: (page) => deflateSync(page),
  2: (page) => Buffer.concat([lzoLiterals(page.length), page, Buffer.from([0x11, 0, 0])]),
  4: (page) => {
    const head = Buffer.from([0x80 | (page.length & 0x7f), page.length >> 7, 61 << 2, 0, 0]);
    head.writeUInt16LE(page.length - 1, 3);
    return Buffer.concat([head, page]);
  },
  // One raw block in one segment whose size has two bytes. RFC 8878, 3.1.1.
  32: (page) => {
    const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x60, 0, 0, 0, 0, 0]);
    head.writeUInt16LE(page.length - 256, 5);
    head.writeUIntLE((page.length << 3) | 1, 7, 3);
    return Buffer.concat([head, page]);
  },
};

function lzoLiterals(length: number): Buffer {
  let rest = length - 3 - 15;
  const bytes = [0];
  for (; rest > 255; rest -= 255) bytes.push(0);
  return Buffer.from([...bytes, rest]);
}

/** A kdump-compressed dump of header version 6. */
export function kdumpOf(ram: Ram, flags = 1, notes = Buffer.alloc(0)): Buffer {
  const all = [...pfns(ram)];
  const maxPfn = Math.max(...all) + 1;
  const half = Math.ceil(maxPfn / 8 / PAGE) * PAGE;
  const header = Buffer.alloc(PAGE);
  header.write('KDUMP   ', 'latin1');
  header.writeInt32LE(6, 8);
  header.writeUInt32LE(PAGE, 428);
  header.writeUInt32LE(1, 432);
  header.writeUInt32LE((2 * half) / PAGE, 436);
  header.writeUInt32LE(maxPfn, 440);
  const sub = Buffer.alloc(PAGE);
  sub.writeBigUInt64LE(BigInt(maxPfn), 96);
  const bitmaps = Buffer.alloc(2 * half);
  const descriptors: Buffer[] = [];
  const pages: Uint8Array[] = [];
  const held = all.filter((pfn) => ram.page(pfn) !== undefined);
  let offset = 2 * PAGE + 2 * half + 24 * held.length;
  const store = (bytes: Uint8Array) => {
    pages.push(bytes);
    offset += bytes.length;
    return offset - bytes.length;
  };
  const packedZero = PACK[flags]!(Buffer.alloc(PAGE));
  const zeroAt = store(packedZero);
  for (const pfn of all) bitmaps[pfn >> 3]! |= 1 << (pfn & 7);
  for (const pfn of held) {
    bitmaps[half + (pfn >> 3)]! |= 1 << (pfn & 7);
    const page = ram.page(pfn)!;
    const zero = page.every((byte) => byte === 0);
    const packed = zero ? packedZero : PACK[flags]!(page);
    const descriptor = Buffer.alloc(24);
    descriptor.writeBigUInt64LE(BigInt(zero ? zeroAt : store(packed)), 0);
    descriptor.writeUInt32LE(packed.length, 8);
    descriptor.writeUInt32LE(flags, 12);
    descriptors.push(descriptor);
  }
  sub.writeBigUInt64LE(BigInt(offset), 48);
  sub.writeBigUInt64LE(BigInt(notes.length), 56);
  return Buffer.concat([header, sub, bitmaps, ...descriptors, ...pages, notes]);
}

/** The same file as a stream, cut into records of this size, in the order given. */
export function flattened(file: Buffer, size: number): Buffer {
  const head = Buffer.alloc(PAGE);
  head.write('makedumpfile', 'latin1');
  head.writeBigInt64BE(1n, 16);
  head.writeBigInt64BE(1n, 24);
  const record = (offset: bigint, bytes: Uint8Array) => {
    const header = Buffer.alloc(16);
    header.writeBigInt64BE(offset, 0);
    header.writeBigInt64BE(offset < 0n ? -1n : BigInt(bytes.length), 8);
    return [header, bytes];
  };
  const records: Uint8Array[][] = [];
  for (let at = 0; at < file.length; at += size)
    records.push(record(BigInt(at), file.subarray(at, at + size)));
  records.reverse();
  return Buffer.concat([head, ...records.flat(), ...record(-1n, Buffer.alloc(0))]);
}

/** An AVML dump of version 1 (plain) or 2 (packed). */
export function avmlOf(ram: Ram, version: 1 | 2): Buffer {
  return Buffer.concat(
    ram.runs.flatMap(({ first, count }) => {
      const header = Buffer.alloc(32);
      header.writeUInt32LE(version, 4);
      header.writeBigUInt64LE(BigInt(first * PAGE), 8);
      header.writeBigUInt64LE(BigInt((first + count) * PAGE - 1), 16);
      header.writeUInt32LE(0x4c4d_5641, 0);
      const pages = Array.from({ length: count }, (_, i) => ram.page(first + i)!);
      if (version === 1) return [header, ...pages];
      const chunk = (type: number, body: Uint8Array) => {
        const head = Buffer.alloc(4);
        head.writeUIntLE(body.length, 1, 3);
        head[0] = type;
        return Buffer.concat([head, body]);
      };
      const checksum = Buffer.alloc(4);
      const chunks = pages.map((page, i) =>
        i % 3 === 0
          ? chunk(1, Buffer.concat([checksum, page]))
          : chunk(0, Buffer.concat([checksum, PACK[4]!(page)])),
      );
      const frames = Buffer.concat([chunk(0xff, Buffer.from('sNaPpY')), ...chunks]);
      const trailer = Buffer.alloc(8);
      trailer.writeBigUInt64LE(BigInt(frames.length));
      return [header, frames, trailer];
    }),
  );
}

/** A core of Xen of an HVM guest: its pages in descending order. */
export function xenCoreOf(ram: Ram): Buffer {
  const order = [...pfns(ram)].reverse();
  const names = ['', '.shstrtab', '.note.Xen', '.xen_pages', '.xen_pfn'];
  const strings = Buffer.from(`${names.join('\0')}\0`);
  const header = Buffer.alloc(32);
  header.writeBigUInt64LE(0xf00f_ebeen, 0);
  header.writeBigUInt64LE(2n, 8);
  header.writeBigUInt64LE(BigInt(order.length), 16);
  header.writeBigUInt64LE(BigInt(PAGE), 24);
  const numbers = Buffer.alloc(8 * order.length);
  for (const [i, pfn] of order.entries()) numbers.writeBigUInt64LE(BigInt(pfn), 8 * i);
  const parts = [
    strings,
    elfNote('Xen', 0x200_0002, header),
    Buffer.concat(order.map((pfn) => ram.page(pfn)!)),
    numbers,
  ];
  const head = Buffer.alloc(64);
  head.write('\x7fELF\x02\x01\x01', 'latin1');
  head.writeUInt16LE(4, 16);
  head.writeUInt16LE(62, 18);
  head.writeUInt16LE(64, 58);
  head.writeUInt16LE(5, 60);
  head.writeUInt16LE(1, 62);
  const table = Buffer.alloc(5 * 64);
  let offset = 64;
  let name = 0;
  for (const [i, part] of parts.entries()) {
    name += names[i]!.length + 1;
    table.writeUInt32LE(name, 64 * (i + 1));
    table.writeBigUInt64LE(BigInt(offset), 64 * (i + 1) + 24);
    table.writeBigUInt64LE(BigInt(part.length), 64 * (i + 1) + 32);
    offset += part.length;
  }
  head.writeBigUInt64LE(BigInt(offset), 40);
  return Buffer.concat([head, ...parts, table]);
}

/** A migration stream with the capability mapped-ram: pages at places of their own in the file. */
export function mappedRamOf(ram: Ram, capabilities = ['mapped-ram']): Buffer {
  const all = [...pfns(ram)];
  const PAGES_AT = 1 << 20;
  const u32 = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const u64 = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return bytes;
  };
  const named = (value: string) => Buffer.concat([Buffer.of(value.length), Buffer.from(value)]);
  const head = Buffer.concat([
    ...[u32(0x5145_564d), u32(3), Buffer.of(7), u32(13), Buffer.from('pc-i440fx-9.0')],
    ...[Buffer.of(5), named('configuration/capabilities'), u32(1), u32(capabilities.length)],
    ...capabilities.map(named),
    ...[Buffer.of(1), u32(2), named('ram'), u32(0), u32(4), u64((all.length * PAGE) | 4)],
    ...[named('pc.ram'), u64(all.length * PAGE), u32(1), u64(PAGE)],
  ]);
  const bitmap = Buffer.alloc(((all.length + 63) >> 6) * 8);
  const pages = all.map((pfn) => ram.page(pfn)!);
  for (const [i, page] of pages.entries())
    if (page.some((byte) => byte !== 0)) bitmap[i >> 3]! |= 1 << (i & 7);
  const start = Buffer.concat([head, u64(head.length + 16), u64(PAGES_AT), bitmap]);
  const end = Buffer.concat([u64(0x10), Buffer.of(0x7e), u32(2)]);
  return Buffer.concat([
    start,
    Buffer.alloc(PAGES_AT - start.length),
    // What was there before a page became zero stays in the file.
    ...pages.map((page) => (page.some((byte) => byte !== 0) ? page : Buffer.alloc(PAGE, 0xee))),
    end,
    // A command of two bytes, as QEMU 10 has one.
    ...[Buffer.of(8, 0, 12, 0, 2, 1, 1), Buffer.of(3), u32(2), end],
  ]);
}

/** A migration stream: RAM in two sections, and again in a third what a guest changed meanwhile. */
export function migrationOf(ram: Ram, changed?: Ram): Buffer {
  const out: Buffer[] = [];
  const u8 = (value: number) => out.push(Buffer.of(value));
  const u32 = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    out.push(bytes);
  };
  const u64 = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    out.push(bytes);
  };
  const text = (value: string) => out.push(Buffer.from(value));
  const named = (value: string) => {
    u8(value.length);
    text(value);
  };
  const all = [...pfns(ram)];
  u32(0x5145_564d);
  u32(3);
  u8(7);
  u32('pc-i440fx-7.2'.length);
  text('pc-i440fx-7.2');
  u8(1);
  u32(2);
  named('ram');
  u32(0);
  u32(4);
  u64(((all.length + 16) * PAGE) | 4);
  named('pc.ram');
  u64(all.length * PAGE);
  named('vga.vram');
  u64(16 * PAGE);
  u64(0x10);
  u8(0x7e);
  u32(2);
  const pages = (type: number, from: Ram) => {
    u8(type);
    u32(2);
    let again = 0;
    for (const pfn of all) {
      const page = from.page(pfn);
      if (page === undefined) continue;
      const zero = page.every((byte) => byte === 0);
      u64((pfn * PAGE) | (zero ? 2 : 8) | again);
      if (again === 0) named('pc.ram');
      again = 0x20;
      if (zero) u8(0);
      else out.push(Buffer.from(page));
    }
    u64(0x10);
    u8(0x7e);
    u32(2);
  };
  pages(2, ram);
  pages(3, changed ?? ram);
  u8(4);
  return Buffer.concat(out);
}

export function libvirtSaveOf(ram: Ram): Buffer {
  const xml = Buffer.from('<domain/>\0');
  const head = Buffer.alloc(92);
  head.write('LibvirtQemudSave', 'latin1');
  head.writeUInt32LE(2, 16);
  head.writeUInt32LE(xml.length, 20);
  head.writeUInt32LE(1, 24);
  return Buffer.concat([head, xml, migrationOf(ram)]);
}

/** What VMware leaves of a suspended guest: its runs one after the other, and where they belong. */
export function vmwareOf(ram: Ram): { memory: Buffer; state: Buffer } {
  const tag = (name: string, indices: readonly number[], value: number) => {
    const head = Buffer.from([(indices.length << 6) | 4, name.length]);
    const words = Buffer.alloc(4 * (indices.length + 1));
    for (const [i, word] of [...indices, value].entries()) words.writeUInt32LE(word, 4 * i);
    return Buffer.concat([head, Buffer.from(name), words]);
  };
  let page = 0;
  const tags = ram.runs.flatMap(({ first, count }, i) => {
    const at = page;
    page += count;
    return [
      tag('regionPPN', [i], first),
      tag('regionPageNum', [i], at),
      tag('regionSize', [i], count),
    ];
  });
  const head = Buffer.alloc(12 + 80);
  head.writeUInt32LE(0xbed2_bed2, 0);
  head.writeUInt32LE(8, 4);
  head.writeUInt32LE(1, 8);
  head.write('memory', 12);
  head.writeBigUInt64LE(92n, 12 + 64);
  const state = Buffer.concat([
    head,
    tag('regionsCount', [], ram.runs.length),
    ...tags,
    Buffer.alloc(2),
  ]);
  return { memory: Buffer.concat([...pfns(ram)].map((pfn) => ram.page(pfn)!)), state };
}
