import { describe, expect, it, vi } from 'vitest';
import { findVmcoreinfo, parseVmcoreinfo, vmcoreinfoAt } from '../../../lib/kernel/vmcoreinfo.js';
import { FakeMemory, fakeAddon, fakePhysicalMemory } from '../support/fake-memory.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

const TEXT = [
  'OSRELEASE=6.1.0-56-cloud-amd64',
  'BUILD-ID=3b43fad5034874490492495d552c0af6a5fab235',
  'PAGESIZE=4096',
  'SYMBOL(_stext)=ffffffff96200000',
  'SYMBOL(swapper_pg_dir)=ffffffff97c10000',
  'OFFSET(list_head.next)=0',
  'NUMBER(phys_base)=-130023424',
  'NUMBER(pgtable_l5_enabled)=1',
  'KERNELOFFSET=15200000',
  'CRASHTIME=',
  '',
].join('\n');
const bytes = (text: string) => Buffer.from(`${text}\0garbage=1\n`);

describe('the text', () => {
  it('is parsed up to its NUL: hex symbols, signed numbers', () => {
    const info = parseVmcoreinfo(bytes(TEXT), 0x1000n)!;
    expect(info).toMatchObject({
      address: 0x1000n,
      release: '6.1.0-56-cloud-amd64',
      buildId: '3b43fad5034874490492495d552c0af6a5fab235',
      kernelOffset: 0x1520_0000n,
    });
    expect(info.symbols.get('_stext')).toBe(0xffff_ffff_9620_0000n);
    expect(info.numbers.get('phys_base')).toBe(-130023424n);
    expect(info.numbers.get('pgtable_l5_enabled')).toBe(1n);
  });

  it.each([
    ['no release', TEXT.replace('OSRELEASE=6', 'OSRELEASE=\x01')],
    ['no _stext', TEXT.replace('_stext', '_other')],
    ['no phys_base', TEXT.replace('phys_base', 'other')],
    ['a symbol that is no hex', TEXT.replace('ffffffff96200000', 'ffffffff9620000g')],
    ['a number of absurd length', TEXT.replace('-130023424', '9'.repeat(40))],
    ['nothing', ''],
    ['a prefix', 'OSRELEASE='],
  ])('is refused with %s', (_, text) => {
    expect(parseVmcoreinfo(bytes(text))).toBeUndefined();
  });

  it('is a page at most', () => {
    const info = parseVmcoreinfo(
      Buffer.concat([bytes(TEXT).subarray(0, TEXT.length), Buffer.alloc(1 << 20, 0x41)]),
    )!;
    expect(info.release).toBe('6.1.0-56-cloud-amd64');
  });
});

describe('the search', () => {
  const ram = Buffer.alloc(1 << 20);
  bytes(TEXT).copy(ram, 0x5000);
  bytes(TEXT).copy(ram, 0x9018);
  bytes(TEXT.replace('56-cloud', '50-cloud')).copy(ram, 0xc018);
  bytes(TEXT).copy(ram, 0xe100); // neither of the two places
  bytes('OSRELEASE=junk\n').copy(ram, 0xf000);
  const memory = fakePhysicalMemory(new FakeMemory({ physical: 0x10_0000n, bytes: ram }));

  it('finds the page and the note, and counts copies once', async () => {
    const found = await findVmcoreinfo(memory);
    expect(found.map(({ release, address }) => [release, address])).toEqual([
      ['6.1.0-56-cloud-amd64', 0x10_5000n],
      ['6.1.0-50-cloud-amd64', 0x10_c018n],
    ]);
  });

  it('reads a copy where one was', () => {
    expect(vmcoreinfoAt(memory, 0x10_9018n)?.release).toBe('6.1.0-56-cloud-amd64');
    expect(vmcoreinfoAt(memory, 0x10_9000n)).toBeUndefined();
    expect(vmcoreinfoAt(memory, 0x999_0000_0000n)).toBeUndefined();
  });
});
