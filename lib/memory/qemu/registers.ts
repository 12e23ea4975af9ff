import { VmiError } from '../../errors.js';
import type { VcpuRegisters } from '../physical-memory.js';

/**
 * Reads control registers out of `info registers -a` (QEMU target/i386/cpu-dump.c).
 * A vCPU outside long mode prints `EIP` and 32-bit values; its row comes back all the same.
 * @throws {VmiError} `VMI_UNSUPPORTED` when no vCPU is found in the text
 */
export function parseRegisters(text: string): VcpuRegisters[] {
  const rows: VcpuRegisters[] = [];
  for (const part of text.split(/^\s*CPU#/m).slice(1)) {
    const vcpu = Number.parseInt(part, 10);
    const value = (name: string) => {
      const match = new RegExp(`\\b${name}=([0-9a-f]+)`).exec(part);
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
