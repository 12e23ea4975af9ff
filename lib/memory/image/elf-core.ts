import { VmiError } from '../../errors.js';
import type { VcpuRegisters } from '../physical-memory.js';

/** A run of guest-physical RAM at an offset of a file. */
export interface FileRange {
  readonly physical: bigint;
  readonly length: bigint;
  readonly offset: bigint;
}

/** What an ELF core of a guest holds. */
export interface ElfCore {
  readonly ranges: readonly FileRange[];
  /** From QEMU's own notes; empty where the core has none. */
  readonly registers: readonly VcpuRegisters[];
}

/** Reads `length` bytes at `offset` of the file; fewer where it ends. */
export type ReadAt = (offset: bigint, length: number) => Buffer;

// System V ABI, ELF-64 object file format.
const ELF_HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const SECTION_HEADER_SIZE = 64;
const ET_CORE = 4;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
const PN_XNUM = 0xffff;
const MAX_PROGRAM_HEADERS = 65_536;
const MAX_NOTES_LENGTH = 64 << 20;

/** Whether the file starts like an ELF file. */
export function isElf(head: Buffer): boolean {
  return head.length >= 4 && head.readUInt32BE(0) === 0x7f454c46;
}

/**
 * Reads the headers of an ELF core as QEMU's `dump-guest-memory` writes it (QEMU dump/dump.c).
 * @throws {VmiError} `VMI_ATTACH`: truncated, not a core, or not x86-64
 */
export function readElfCore(readAt: ReadAt, fileSize: bigint, path: string): ElfCore {
  const fail = (why: string) =>
    new VmiError('VMI_ATTACH', `${path} cannot be used as a memory image: ${why}`);
  const head = readAt(0n, ELF_HEADER_SIZE);
  if (head.length < ELF_HEADER_SIZE) throw fail('its ELF header is truncated');
  if (head[4] !== 2 || head[5] !== 1) {
    throw fail(
      'it is not a 64-bit little-endian ELF file; dump with paging off: dump-guest-memory -p is not needed',
    );
  }
  if (head.readUInt16LE(16) !== ET_CORE)
    throw fail('it is an ELF file but no core (e_type is not ET_CORE)');
  if (head.readUInt16LE(18) !== EM_X86_64) throw fail('it is no core of an x86-64 machine');
  const phoff = head.readBigUInt64LE(32);
  const phentsize = head.readUInt16LE(54);
  let phnum = head.readUInt16LE(56);
  if (phentsize !== PROGRAM_HEADER_SIZE)
    throw fail(`its program headers have ${phentsize} bytes instead of 56`);
  if (phnum === PN_XNUM) {
    const section = readAt(head.readBigUInt64LE(40), SECTION_HEADER_SIZE);
    if (section.length < SECTION_HEADER_SIZE) throw fail('its section header is truncated');
    phnum = section.readUInt32LE(44);
  }
  if (phnum === 0 || phnum > MAX_PROGRAM_HEADERS) throw fail(`it claims ${phnum} program headers`);
  const headers = readAt(phoff, phnum * PROGRAM_HEADER_SIZE);
  if (headers.length < phnum * PROGRAM_HEADER_SIZE) throw fail('its program headers are truncated');

  const ranges: FileRange[] = [];
  let registers: VcpuRegisters[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = i * PROGRAM_HEADER_SIZE;
    const type = headers.readUInt32LE(at);
    const offset = headers.readBigUInt64LE(at + 8);
    const physical = headers.readBigUInt64LE(at + 24);
    const length = headers.readBigUInt64LE(at + 32);
    if (type === PT_NOTE && length <= BigInt(MAX_NOTES_LENGTH)) {
      registers = readQemuNotes(readAt(offset, Number(length)));
    }
    if (type !== PT_LOAD || length === 0n) continue;
    if (offset > fileSize || length > fileSize - offset) {
      throw fail(
        `it is truncated: the RAM at ${`0x${physical.toString(16)}`} needs ${offset + length} bytes of file, there are ${fileSize}. Copy it again, whole`,
      );
    }
    ranges.push({ physical, length, offset });
  }
  if (ranges.length === 0) throw fail('it has no RAM (no PT_LOAD segment)');
  ranges.sort((a, b) => (a.physical < b.physical ? -1 : a.physical > b.physical ? 1 : 0));
  for (let i = 1; i < ranges.length; i++) {
    const previous = ranges[i - 1]!;
    if (previous.physical + previous.length > ranges[i]!.physical) {
      throw fail('its segments overlap: dump physical memory (paging=false)');
    }
  }
  return { ranges, registers };
}

// QEMUCPUState, version 1: QEMU target/i386/arch_dump.c.
const STATE_RIP = 8 + 16 * 8;
const STATE_CR = 8 + 18 * 8 + 10 * 24;
const STATE_SIZE = STATE_CR + 5 * 8;

/** Registers out of the notes that QEMU writes, one a vCPU; other notes are passed over. */
export function readQemuNotes(notes: Buffer): VcpuRegisters[] {
  const rows: VcpuRegisters[] = [];
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameSize = notes.readUInt32LE(at);
    const descSize = notes.readUInt32LE(at + 4);
    const nameAt = at + 12;
    const descAt = nameAt + ((nameSize + 3) & ~3);
    const next = descAt + ((descSize + 3) & ~3);
    if (nameSize > notes.length || descSize > notes.length || next > notes.length) break;
    if (
      nameSize === 5 &&
      notes.toString('latin1', nameAt, nameAt + 4) === 'QEMU' &&
      descSize >= STATE_SIZE
    ) {
      const cr = (n: number) => notes.readBigUInt64LE(descAt + STATE_CR + 8 * n);
      rows.push({
        vcpu: rows.length,
        cr0: cr(0),
        cr3: cr(3),
        cr4: cr(4),
        rip: notes.readBigUInt64LE(descAt + STATE_RIP),
        efer: 0n,
      });
    }
    at = next;
  }
  return rows;
}
