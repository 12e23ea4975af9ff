// Notes of an ELF file: a list of (name size, descriptor size, type) of 4 bytes each, then the name
// and the descriptor, each padded to 4 bytes. System V ABI, "Note Section".
//
// name        type   descriptor
// QEMU        0      QEMUCPUState of one vCPU, registers and all (QEMU target/i386/arch_dump.c)
// CORE        1, 3   NT_PRSTATUS, NT_PRPSINFO: of a process, and of a CPU that crashed
//                    (include/uapi/linux/elf.h)
// VMCOREINFO  0      the crashed kernel's own text
// VBCORE      0xb00  VirtualBox (include/VBox/vmm/dbgfcorefmt.h)
import { moreRegisters, type VcpuRegisters } from '../registers.js';

/** One note. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly descriptor: Buffer;
}

/** The notes in these bytes, up to the first that does not fit. */
export function elfNotes(notes: Buffer): ElfNote[] {
  const found: ElfNote[] = [];
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameSize = notes.readUInt32LE(at);
    const size = notes.readUInt32LE(at + 4);
    if (nameSize > notes.length || size > notes.length) break;
    const nameAt = at + 12;
    const start = nameAt + ((nameSize + 3) & ~3);
    const next = start + ((size + 3) & ~3);
    if (start + size > notes.length) break;
    found.push({
      name: notes.toString('latin1', nameAt, nameAt + nameSize).replace(/\0.*$/s, ''),
      type: notes.readUInt32LE(at + 8),
      descriptor: notes.subarray(start, start + size),
    });
    at = next;
  }
  return found;
}

// QEMUCPUState, version 1: QEMU target/i386/arch_dump.c. rip and rflags follow these; segments and
// tables are 24 bytes each: selector, limit, flags, padding, base.
const GENERAL = [
  ...['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'],
  ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'],
];
const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'ldt', 'tr', 'gdt', 'idt'];
const STATE_RIP = 8 + 16 * 8;
const STATE_CR = 8 + 18 * 8 + 10 * 24;
const STATE_SIZE = STATE_CR + 5 * 8;

/** Registers out of the notes that QEMU writes, one a vCPU. */
export function qemuRegisters(notes: readonly ElfNote[]): VcpuRegisters[] {
  return notes
    .filter(({ name, descriptor }) => name === 'QEMU' && descriptor.length >= STATE_SIZE)
    .map(({ descriptor }, vcpu) => {
      const cr = (n: number) => descriptor.readBigUInt64LE(STATE_CR + 8 * n);
      return {
        vcpu,
        cr0: cr(0),
        cr3: cr(3),
        cr4: cr(4),
        rip: descriptor.readBigUInt64LE(STATE_RIP),
        efer: 0n,
        ...moreRegisters((name) => {
          const general = GENERAL.indexOf(name);
          if (general >= 0) return descriptor.readBigUInt64LE(8 + 8 * general);
          const segment = SEGMENTS.indexOf(name.replace(/Base$/, ''));
          const at = 8 + 18 * 8 + 24 * segment;
          if (segment >= 0 && name.endsWith('Base')) return descriptor.readBigUInt64LE(at + 16);
          if (segment >= 0) return BigInt(descriptor.readUInt32LE(at));
          if (name === 'cr2') return cr(2);
          const isLong = name === 'kernelGsBase' && descriptor.length >= STATE_SIZE + 8;
          return isLong ? descriptor.readBigUInt64LE(STATE_SIZE) : undefined;
        }),
      };
    });
}

const NT_PRPSINFO = 3;
// struct elf_prpsinfo of x86-64: pr_fname has 16 bytes. include/linux/elfcore.h.
const PR_FNAME = 40;

/** Name of the process that the core is of; `undefined` where the notes tell none. */
export function processName(notes: readonly ElfNote[]): string | undefined {
  const info = notes.find(({ name, type }) => name === 'CORE' && type === NT_PRPSINFO)?.descriptor;
  if (info === undefined || info.length < PR_FNAME + 16) return undefined;
  return info.toString('latin1', PR_FNAME, PR_FNAME + 16).replace(/\0.*$/s, '');
}
