// An ELF core of a guest: a header of 64 bytes, program headers of 56, and the bytes they name.
//
// header   e_type 16  e_machine 18  e_phoff 32  e_shoff 40  e_phentsize 54  e_phnum 56 (0xffff:
//                                               sh_info of section 0, at 44)
// program  p_type 0   p_offset 8    p_vaddr 16  p_paddr 24  p_filesz 32     p_memsz 40
//
// A PT_LOAD is a run of RAM: p_memsz bytes at p_paddr, of which the file holds the first p_filesz.
// What is between the two was left out (makedumpfile -E): it may have held anything. System V ABI,
// ELF-64 object file format.
//
// Written by QEMU (dump/dump.c, dump-guest-memory), the crashed kernel (fs/proc/vmcore.c; the
// kernel's text overlaps its direct map), the running one (fs/proc/kcore.c; p_paddr is -1 for what
// is in no direct map), makedumpfile -E, VirtualBox (VMM/VMMR3/DBGFCoreWrite.cpp).
import { cutShort, type DumpContent, type DumpRange, heldBy, MAX_PHYSICAL } from './content.js';
import { type ElfNote, elfNotes, processName, qemuRegisters } from './elf-notes.js';
import { exactly, type ImageFile } from './file.js';

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

interface Load extends DumpRange {
  readonly held: bigint;
}

/**
 * Reads the headers of an ELF core.
 * @throws {VmiError} `VMI_ATTACH`: truncated, not a core, not x86-64, or the core of a process
 */
export function readElfCore(file: ImageFile): DumpContent {
  const headers = programHeaders(file);
  const loads: Load[] = [];
  const notes: ElfNote[] = [];
  for (let at = 0; at < headers.length; at += PROGRAM_HEADER_SIZE) {
    const type = headers.readUInt32LE(at);
    const offset = headers.readBigUInt64LE(at + 8);
    const physical = headers.readBigUInt64LE(at + 24);
    const inFile = headers.readBigUInt64LE(at + 32);
    const length = headers.readBigUInt64LE(at + 40);
    if (type === PT_NOTE && inFile <= BigInt(MAX_NOTES_LENGTH)) {
      notes.push(...elfNotes(file.read(offset, Number(inFile))));
    }
    if (type !== PT_LOAD) continue;
    const held = inFile < length ? inFile : length;
    if (length === 0n || physical >= MAX_PHYSICAL || length > MAX_PHYSICAL - physical) continue;
    loads.push({ physical, length, offset, held });
  }
  if (loads.length === 0) throw file.fail('it has no RAM (no PT_LOAD segment)');
  refuseProcess(file, loads, notes);
  let missing = 0n;
  const ranges = loads.map((load) => {
    const held = heldBy(file.size, load.offset, load.held);
    missing += load.held - held;
    return { ...load, held };
  });
  if (ranges.every(({ held }) => held === 0n))
    throw file.fail('it is truncated before the first byte of RAM. Copy it again, whole');
  return { format: cutShort('ELF core', missing), ranges, registers: qemuRegisters(notes) };
}

function programHeaders(file: ImageFile): Buffer {
  const head = exactly(file, file, 0n, ELF_HEADER_SIZE, 'ELF header');
  if (head[4] !== 2 || head[5] !== 1) {
    throw file.fail('it is not a 64-bit little-endian ELF file: it is no dump of an x86-64 guest');
  }
  if (head.readUInt16LE(16) !== ET_CORE)
    throw file.fail('it is an ELF file but no core (e_type is not ET_CORE)');
  if (head.readUInt16LE(18) !== EM_X86_64) throw file.fail('it is no core of an x86-64 machine');
  const size = head.readUInt16LE(54);
  if (size !== PROGRAM_HEADER_SIZE)
    throw file.fail(`its program headers have ${size} bytes instead of 56`);
  let count = head.readUInt16LE(56);
  if (count === PN_XNUM) {
    const at = head.readBigUInt64LE(40);
    const section = exactly(file, file, at, SECTION_HEADER_SIZE, 'section header');
    count = section.readUInt32LE(44);
  }
  if (count === 0 || count > MAX_PROGRAM_HEADERS)
    throw file.fail(`it claims ${count} program headers`);
  const length = count * PROGRAM_HEADER_SIZE;
  return exactly(file, file, head.readBigUInt64LE(32), length, 'program headers');
}

/**
 * The core of a process has no physical addresses: Linux writes 0 for each (fs/binfmt_elf.c,
 * elf_core_dump).
 */
function refuseProcess(file: ImageFile, loads: readonly Load[], notes: readonly ElfNote[]): void {
  if (loads.length < 2 || loads.some(({ physical }) => physical !== 0n)) return;
  const name = processName(notes);
  const which = name === undefined ? 'a process' : `the process '${name}'`;
  const hint = /^(qemu|kvm)/.test(name ?? '')
    ? 'QEMU writes one of its guest: dump-guest-memory in its monitor, or virsh dump --memory-only'
    : 'what is needed is a dump of a guest';
  throw file.fail(`it is a core of ${which} on the host, not of a guest: ${hint}`);
}
