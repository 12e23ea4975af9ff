import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import { StandIn } from './support/stand-in.js';

const standIn = new StandIn();
afterEach(() => delete process.env.STANDIN_PV);
afterAll(() => standIn.remove());

const open = (driver: 'xen' | 'kvm') =>
  openLibvmi({ driver, name: standIn.ram, library: standIn.library });

describe('a domain of Xen', () => {
  it('is read at what it calls physical itself', async () => {
    const memory = await open('xen');
    expect(memory).toMatchObject({
      addressing: 'guest-physical',
      sparse: true,
      size: 1n << 20n,
      end: 1n << 20n,
    });
    await memory.close();
  });

  it('is read at addresses of the machine when its vCPUs have no EFER', async () => {
    process.env.STANDIN_PV = '1';
    const memory = await open('xen');
    // Where the machine's memory ends is not known: all that a page table can hold may be RAM, and
    // a read finds out.
    expect(memory).toMatchObject({
      addressing: 'machine',
      sparse: true,
      size: 1n << 20n,
      end: 1n << 52n,
    });
    expect(memory.readU64(0x1000n)).toBe(0x1000n);
    expect(() => memory.readU64(1n << 40n)).toThrow(expect.objectContaining({ code: 'VMI_FAULT' }));
    expect((await memory.registers()).map(({ cr3, efer }) => [cr3, efer])).toEqual([
      [0x1000n, 0n],
      [0x2000n, 0n],
    ]);
    await memory.close();
  });

  it('is what only Xen has', async () => {
    process.env.STANDIN_PV = '1';
    const memory = await open('kvm');
    expect(memory).toMatchObject({ addressing: 'guest-physical', sparse: false });
    await memory.close();
  });
});
