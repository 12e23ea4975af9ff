// A migration stream of QEMU ("migrate file:…", "migrate exec:cat>…"), and the file of virsh save,
// which is one behind a header of libvirt.
//
// libvirt    'LibvirtQemudSave' (…Part: not finished) 0, version 16, length of the XML behind the
//            header
//            20, running 24, packing 28 (0: none); 92 bytes in all, then the XML.
//            src/qemu/qemu_saveimage.h
// stream     'QEVM' 0, version 3 at 4 (big-endian, as all of it), then sections
// section    type: 7 configuration (length, machine), 1 start and 4 full (id, name, instance,
//            version),
//            2 part and 3 end (id); of RAM: pages; then 0x7e and the id again; 8 a command
//            (number, length), which is passed over
// pages      8 bytes of address and flags: 4 list of blocks, 2 a page of one byte, 8 a page,
//            0x10 end of the section, 0x20 the same block as before (else its name: length, bytes)
// mapped     with the capability mapped-ram, behind each block in the list: version 1, bytes of a
//            page, offset of a bitmap, offset of the pages; the list goes on behind these. Bit i
//            (the lowest of byte 0 first) is set where page i is not zero.
//            docs/devel/migration/mapped-ram.rst, `mapped_ram_setup_ramblock`
//
// A page may come several times: the last one counts. Pages of the same number that never come were
// never told of: QEMU sends every page at least once. QEMU migration/savevm.c, migration/ram.c.
import type { VmiError } from '../../errors.js';
import { Cursor } from './cursor.js';
import type { Bytes, ImageFile } from './file.js';
import { type Unpacked, unpacking } from './unpacked.js';

const MAGIC = 0x5145_564d;
const VERSION = 3;
const LIBVIRT_HEADER = 92;
const PACKINGS = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd'];
const SECTION_START = 1;
const SECTION_PART = 2;
const SECTION_END = 3;
const CONFIGURATION = 7;
/** `QEMU_VM_COMMAND`: QEMU 10 says so that the switch to the other side starts. */
const COMMAND = 8;
const FOOTER = 0x7e;
/** `vmstate_capabilites`. QEMU migration/savevm.c. */
const CAPABILITIES = 'configuration/capabilities';
const MAX_CAPABILITIES = 64;
const SUBSECTION = 5;
const ZERO = 0x02n;
const BLOCKS = 0x04n;
const PAGE_FLAG = 0x08n;
const EOS = 0x10n;
const CONTINUE = 0x20n;
const FLAGS = 0xfffn;
const PAGE = 4096;
const MAX_BLOCKS = 4096;
const MAX_RAM = 1n << 46n;
const MAPPED_VERSION = 1;
/** Pages of a mapped block that are copied at once. */
const RUN = 256;

/** A memory block of the guest's QEMU. */
export interface MigratedBlock {
  readonly name: string;
  readonly length: bigint;
  /** Where its first page is in the unpacked file. */
  readonly offset: bigint;
}

/** What a stream brought. */
export interface Migration {
  /** `pc-i440fx-7.2`; empty where it does not tell. */
  readonly machine: string;
  readonly blocks: readonly MigratedBlock[];
  readonly unpacked: number;
  /** One bit a page of the unpacked file, set where the stream had it. */
  readonly present: Uint8Array;
}

/** Whether the file starts like a migration stream, or like what libvirt saves. */
export function isMigration(head: Buffer): boolean {
  return isLibvirt(head) || (head.length >= 8 && head.readUInt32BE(0) === MAGIC);
}

function isLibvirt(head: Buffer): boolean {
  return /^LibvirtQemud(Save|Part)$/.test(head.toString('latin1', 0, 16));
}

/**
 * Unpacks the RAM of a migration stream.
 * @throws {VmiError} `VMI_ATTACH`: truncated, packed, or with capabilities that change the stream
 */
export function readMigration(file: ImageFile): Migration {
  const start = streamStart(file);
  return unpacking(file, (unpacked) => new Stream(file, file, start, unpacked).read());
}

function streamStart(file: ImageFile): bigint {
  const head = file.read(0n, LIBVIRT_HEADER);
  if (!isLibvirt(head)) return 0n;
  if (head.length < LIBVIRT_HEADER) throw file.fail('it is truncated within its header');
  if (head.toString('latin1', 0, 16) === 'LibvirtQemudPart')
    throw file.fail('libvirt did not finish saving it');
  const packing = head.readUInt32LE(28);
  if (packing !== 0) {
    throw file.fail(
      `it is packed with ${PACKINGS[packing] ?? `method ${packing}`}: save with save_image_format = "raw" (/etc/libvirt/qemu.conf), or use 'virsh dump --memory-only'`,
    );
  }
  return BigInt(LIBVIRT_HEADER + head.readUInt32LE(20));
}

class Stream {
  readonly #file: ImageFile;
  readonly #bytes: Bytes;
  readonly #at: Cursor;
  readonly #unpacked: Unpacked;
  readonly #blocks: MigratedBlock[] = [];
  #machine = '';
  #mapped = false;
  #present = new Uint8Array(0);
  /** The block of the page before. */
  #block: MigratedBlock | undefined;

  constructor(file: ImageFile, bytes: Bytes, start: bigint, unpacked: Unpacked) {
    this.#file = file;
    this.#bytes = bytes;
    this.#at = new Cursor(bytes, start, () => this.#broken('is truncated. Copy it again, whole'));
    this.#unpacked = unpacked;
  }

  read(): Migration {
    if (this.#at.u32() !== MAGIC) throw this.#broken('does not start with QEVM');
    const version = this.#at.u32();
    if (version !== VERSION) throw this.#broken(`has version ${version}, not ${VERSION}`);
    let ram: number | undefined;
    for (;;) {
      const type = this.#at.u8();
      if (type === CONFIGURATION) {
        this.#configuration();
        continue;
      }
      if (type === COMMAND) {
        this.#at.bytes(2);
        this.#at.bytes(this.#at.bytes(2).readUInt16BE());
        continue;
      }
      if (type === SECTION_START && ram === undefined) ram = this.#start();
      else if (type !== SECTION_PART && type !== SECTION_END)
        throw this.#broken(`has a section of type ${type} before RAM is complete`);
      else if (this.#at.u32() !== ram) throw this.#broken('has sections of something beside RAM');
      this.#pages();
      if (this.#at.u8() !== FOOTER || this.#at.u32() !== ram)
        throw this.#broken('has a section that does not end where it should');
      // The devices follow, which are nothing to read memory by.
      if (type === SECTION_END) break;
    }
    const end = this.#blocks.at(-1);
    if (end === undefined) throw this.#broken('has no RAM');
    this.#unpacked.reach(end.offset + end.length);
    return {
      machine: this.#machine,
      blocks: this.#blocks,
      unpacked: this.#unpacked.fd,
      present: this.#present,
    };
  }

  #configuration(): void {
    this.#machine = this.#at.text(this.#at.u32());
    if (this.#at.peek() !== SUBSECTION) return;
    this.#at.u8();
    const name = this.#at.text(this.#at.u8());
    this.#at.u32();
    if (name !== CAPABILITIES) throw this.#broken(`has a part '${name}' that is not known`);
    const capabilities: string[] = [];
    for (let left = this.#at.u32(); left > 0 && capabilities.length < MAX_CAPABILITIES; left--)
      capabilities.push(this.#at.text(this.#at.u8()));
    // They change what follows: a page may be elsewhere, or packed.
    const others = capabilities.filter((one) => one !== 'mapped-ram');
    if (others.length > 0)
      throw this.#broken(`was made with ${others.join(', ')}, which change it: migrate without`);
    this.#mapped = capabilities.length > 0;
  }

  #start(): number {
    const id = this.#at.u32();
    const name = this.#at.text(this.#at.u8());
    if (name !== 'ram') throw this.#broken(`starts with '${name}', not with RAM`);
    this.#at.u32();
    this.#at.u32();
    return id;
  }

  #pages(): void {
    for (;;) {
      const word = this.#at.u64();
      const flags = word & FLAGS;
      const address = word & ~FLAGS;
      if (flags === EOS) return;
      if (flags === BLOCKS) {
        this.#list(address);
        continue;
      }
      const kind = flags & ~CONTINUE;
      if (kind !== ZERO && kind !== PAGE_FLAG) {
        throw this.#broken(
          `has pages of a sort that is not read (flags ${flags}): migrate without compression, xbzrle and multifd`,
        );
      }
      if ((flags & CONTINUE) === 0n) this.#block = this.#named(this.#at.text(this.#at.u8()));
      const block = this.#block;
      if (block === undefined || address + BigInt(PAGE) > block.length)
        throw this.#broken('has a page outside its block');
      const place = block.offset + address;
      const page = kind === ZERO ? Buffer.alloc(PAGE, this.#at.u8()) : this.#at.bytes(PAGE);
      this.#unpacked.putAt(place, page);
      const index = Number(place / BigInt(PAGE));
      this.#present[index >>> 3]! |= 1 << (index & 7);
    }
  }

  #list(total: bigint): void {
    if (this.#blocks.length > 0) throw this.#broken('lists its blocks twice');
    if (total > MAX_RAM) throw this.#broken(`claims ${total} bytes of RAM`);
    for (let offset = 0n; offset < total; ) {
      const name = this.#at.text(this.#at.u8());
      const length = this.#at.u64();
      if (length === 0n || length % BigInt(PAGE) !== 0n || length > total - offset)
        throw this.#broken(`has a block '${name}' of ${length} bytes`);
      if (this.#blocks.length === MAX_BLOCKS) throw this.#broken('has too many blocks');
      const block = { name, length, offset };
      this.#blocks.push(block);
      if (this.#mapped) this.#copyMapped(block);
      offset += length;
    }
    const bytes = Number(total / BigInt(PAGE) / 8n) + 1;
    // What is not in a mapped file is zero.
    this.#present = new Uint8Array(bytes).fill(this.#mapped ? 0xff : 0);
  }

  /** Copies what the list's next words say of a block, and goes on behind its pages. */
  #copyMapped({ name, length, offset }: MigratedBlock): void {
    const version = this.#at.u32();
    const size = this.#at.u64();
    const [bitmapAt, pagesAt] = [this.#at.u64(), this.#at.u64()];
    if (version !== MAPPED_VERSION || size !== BigInt(PAGE))
      throw this.#broken(`has a mapped block '${name}' of version ${version}, pages of ${size}`);
    const pages = Number(length / BigInt(PAGE));
    const bitmap = this.#exactly(bitmapAt, (pages + 7) >> 3);
    const isSet = (page: number) => ((bitmap[page >> 3]! >> (page & 7)) & 1) === 1;
    for (let page = 0; page < pages; page++) {
      if (!isSet(page)) continue;
      let count = 1;
      while (count < RUN && page + count < pages && isSet(page + count)) count++;
      const start = BigInt(page * PAGE);
      this.#unpacked.putAt(offset + start, this.#exactly(pagesAt + start, count * PAGE));
      page += count - 1;
    }
    this.#at.seek(pagesAt + length);
  }

  #exactly(offset: bigint, length: number): Buffer {
    const bytes = this.#bytes.read(offset, length);
    if (bytes.length < length) throw this.#broken('is truncated. Copy it again, whole');
    return bytes;
  }

  #named(name: string): MigratedBlock {
    const block = this.#blocks.find((known) => known.name === name);
    if (block === undefined) throw this.#broken(`has a page of an unknown block '${name}'`);
    return block;
  }

  #broken(why: string): VmiError {
    return this.#file.fail(`the migration stream in it ${why}`);
  }
}
