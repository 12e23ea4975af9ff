import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  type HostMapping,
  hostMappings,
  runsOfSize,
} from '../../../lib/memory/process/host-mappings.js';

const MIB = 1n << 20n;

const mapping = (start: bigint, length: bigint, more: Partial<HostMapping> = {}): HostMapping => ({
  start: start * MIB,
  end: (start + length) * MIB,
  shared: false,
  writable: true,
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

  it('does not join over a gap, as a guard page is, or another file', () => {
    expect(runsOfSize([mapping(0n, 256n), mapping(257n, 256n)], 512n * MIB)).toEqual([]);
    expect(runsOfSize([mapping(0n, 256n), mapping(256n, 256n, { inode: 7n })], 512n * MIB)).toEqual(
      [],
    );
  });

  it('finds every block of that size', () => {
    expect(runsOfSize([mapping(0n, 256n), mapping(512n, 256n)], 256n * MIB)).toEqual([
      0n,
      512n * MIB,
    ]);
  });
});

describe('hostMappings', () => {
  it('leaves out what cannot be read, code and libraries', () => {
    const maps = readFileSync('/proc/self/maps', 'utf8').trim().split('\n');
    const mappings = hostMappings(process.pid);
    const heap = maps.find((line) => line.endsWith('[heap]'))!;
    expect(mappings.find(({ path }) => path === '[heap]')!.start).toBe(
      BigInt(`0x${heap.split('-')[0]}`),
    );
    expect(maps.some((line) => /r-xp.*\.so/.test(line) || / ---p /.test(line))).toBe(true);
    expect(mappings.filter(({ path }) => /\.so/.test(path))).toEqual([]);
    const starts = (access: RegExp) =>
      new Set(
        maps.filter((line) => access.test(line)).map((line) => BigInt(`0x${line.split('-')[0]}`)),
      );
    for (const access of [/ ---/, / r-x/])
      expect(mappings.filter(({ start }) => starts(access).has(start))).toEqual([]);
    // And nothing else.
    const kept = maps.filter((line) => / r.-. /.test(line) && !/\.so[.\d]*$/.test(line));
    expect(mappings.length).toBeGreaterThan(kept.length - 20);
  });
});
