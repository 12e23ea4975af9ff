import { VmiError } from '../../errors.js';
import { moreRegisters, type VcpuRegisters } from '../registers.js';

/** Registers that QEMU calls otherwise than the manual does. */
const SPELLED: Readonly<Record<string, string>> = { rflags: 'RFL' };
/** Where the base of a segment, or of a table, stands: behind the selector, or alone. */
const BASES: Readonly<Record<string, RegExp>> = {
  fsBase: /\bFS *=[0-9a-f]+ ([0-9a-f]+)/,
  gsBase: /\bGS *=[0-9a-f]+ ([0-9a-f]+)/,
  trBase: /\bTR *=[0-9a-f]+ ([0-9a-f]+)/,
  gdtBase: /\bGDT= *([0-9a-f]+)/,
  idtBase: /\bIDT= *([0-9a-f]+)/,
};

function base(part: string, name: string): bigint | undefined {
  const match = BASES[name]?.exec(part);
  return match == null ? undefined : BigInt(`0x${match[1]}`);
}

/**
 * Reads registers out of `info registers -a` (QEMU target/i386/cpu-dump.c).
 * A vCPU outside long mode prints `EIP` and 32-bit values; its row comes back all the same.
 * @throws {VmiError} `VMI_UNSUPPORTED` when no vCPU is found in the text
 */
export function parseRegisters(text: string): VcpuRegisters[] {
  const rows: VcpuRegisters[] = [];
  for (const part of text.split(/^\s*CPU#/m).slice(1)) {
    const vcpu = Number.parseInt(part, 10);
    const value = (name: string) => {
      const match = new RegExp(`\\b${name} *=([0-9a-f]+)`).exec(part);
      return match === null ? undefined : BigInt(`0x${match[1]}`);
    };
    const [cr0, cr3, cr4] = [value('CR0'), value('CR3'), value('CR4')];
    if (!Number.isInteger(vcpu) || cr0 === undefined || cr3 === undefined || cr4 === undefined)
      continue;
    rows.push({
      vcpu,
      cr0,
      cr3,
      cr4,
      rip: value('RIP') ?? value('EIP') ?? 0n,
      efer: value('EFER') ?? 0n,
      ...moreRegisters((name) => value(SPELLED[name] ?? name.toUpperCase()) ?? base(part, name)),
    });
  }
  if (rows.length === 0) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `QEMU's 'info registers -a' shows no x86 control registers: ${JSON.stringify(text.slice(0, 80))}`,
    );
  }
  return rows;
}
