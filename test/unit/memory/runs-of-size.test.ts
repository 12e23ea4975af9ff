import { describe, expect, it } from 'vitest';
import { type HostMapping, runsOfSize } from '../../../lib/memory/qemu/process.js';

const MIB = 1n << 20n;

const mapping = (start: bigint, length: bigint, more: Partial<HostMapping> = {}): HostMapping => ({
  start: start * MIB,
  end: (start + length) * MIB,
  readable: true,
  shared: false,
  offset: 0n,
  inode: 0n,
  device: '00:00',
  path: '',
  ...more,
});

describe('runsOfSize', () => {
  it('finds a block behind other anonymous memory that touches it', () => {
    const mappings = [mapping(97n, 1n), mapping(98n, 2n), mapping(100n, 512n), mapping(612n, 1n)];
    expect(runsOfSize(mappings, 512n * MIB)).toEqual([100n * MIB]);
  });

  it('finds a block that advice or NUMA policy splits', () => {
    const mappings = [mapping(99n, 1n), mapping(100n, 200n), mapping(300n, 312n)];
    expect(runsOfSize(mappings, 512n * MIB)).toEqual([100n * MIB]);
  });

  it('does not join over a gap, a guard page, or another file', () => {
    expect(runsOfSize([mapping(0n, 256n), mapping(257n, 256n)], 512n * MIB)).toEqual([]);
    expect(runsOfSize([mapping(0n, 256n), mapping(256n, 256n, { readable: false })], 512n * MIB)).toEqual([]);
    expect(runsOfSize([mapping(0n, 256n), mapping(256n, 256n, { inode: 7n })], 512n * MIB)).toEqual([]);
  });

  it('finds every block of that size', () => {
    expect(runsOfSize([mapping(0n, 256n), mapping(512n, 256n)], 256n * MIB)).toEqual([0n, 512n * MIB]);
  });
});
