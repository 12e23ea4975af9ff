import { describe, expect, it } from 'vitest';
import { formatTarget, parseTarget } from '../../../lib/index.js';
import { kvmRanges } from '../../../lib/memory/libvmi/kvm-ranges.js';
import { libvirtUri, parseNames } from '../../../lib/memory/qemu/libvirt.js';

const UUID = '43cc656f-c9e0-4bc2-b4c8-b7155b1b1fe7';

describe('libvirt:', () => {
  it.each(['10', 'my vm', 'web:1', '-x', ' '])("takes '%s' for a name", (name) => {
    const target = parseTarget(`libvirt:${name}`);
    expect(target).toEqual({ kind: 'libvirt', name });
    expect(formatTarget(target)).toBe(`libvirt:${name}`);
  });

  it('goes where virsh is told to go', () => {
    expect(libvirtUri({})).toBe('qemu:///system');
    expect(libvirtUri({ LIBVIRT_DEFAULT_URI: '' })).toBe('qemu:///system');
    expect(libvirtUri({ LIBVIRT_DEFAULT_URI: 'qemu:///session' })).toBe('qemu:///session');
  });

  it('reads names with anything in them, and nothing else', () => {
    const other = UUID.replace('43', '44');
    expect(parseNames(`${UUID} 10\n${other} ${UUID} x \nSome remark\n\n`)).toEqual([
      { uuid: UUID, name: '10' },
      { uuid: other, name: `${UUID} x ` },
    ]);
    expect(parseNames('\n')).toEqual([]);
  });
});

describe('RAM as the KVM driver of libvmi tells it', () => {
  const MIB = 1n << 20n;
  const VIDEO = 0xa_0000n;
  const AFTER = 0xc_0000n;

  it('is below the devices, and from 4 GiB on', () => {
    expect(kvmRanges(256n * MIB, 256n * MIB)).toEqual([
      [0n, VIDEO],
      [AFTER, 256n * MIB],
    ]);
    expect(kvmRanges(4096n * MIB, 6144n * MIB)).toEqual([
      [0n, VIDEO],
      [AFTER, 2048n * MIB],
      [4096n * MIB, 6144n * MIB],
    ]);
  });

  it('never reaches into devices, whatever the numbers', () => {
    // A DIMM counts as memory and lies where the driver does not look.
    expect(kvmRanges(6144n * MIB, 6144n * MIB).at(-2)).toEqual([AFTER, 3584n * MIB]);
    expect(kvmRanges(512n * 1024n, 512n * 1024n)).toEqual([[0n, 512n * 1024n]]);
    expect(kvmRanges(0n, 5000n * MIB)).toEqual([[4096n * MIB, 5000n * MIB]]);
  });
});
