import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach } from '../../lib/index.js';
import { hostMappings } from '../../lib/memory/process/host-mappings.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const MIB = 1 << 20;

/** Pages of a process that are in memory, and its resident memory in MiB. proc_pid_pagemap(5). */
function inMemory(pid: number, size: bigint): { pages: number; resident: number } {
  const pagemap = openSync(`/proc/${pid}/pagemap`, 'r');
  const ram = hostMappings(pid).find(({ start, end }) => end - start >= size)!;
  const entries = Buffer.alloc(Number((ram.end - ram.start) / 512n));
  readSync(pagemap, entries, 0, entries.length, ram.start / 512n);
  closeSync(pagemap);
  let pages = 0;
  for (let at = 7; at < entries.length; at += 8) pages += entries[at]! >> 7;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return { pages, resident: Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024 };
}

/**
 * A guest of which most was never touched, and whose QEMU offers no registers: RAM is searched for
 * the kernel.
 */
describe('untouched RAM of a guest', () => {
  let lab: LabGuest;
  beforeAll(async () => {
    lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 1024, qmp: false });
  });
  afterAll(() => lab?.close());

  it('stays untouched when it is attached, listed, searched and read', async () => {
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    const size = BigInt(1024 * MIB);
    const before = inMemory(lab.pid, size);
    expect(before.pages).toBeLessThan((1024 * MIB) / 4096 / 2);
    const guest = await attach(`qemu:${lab.pid}`, { cache: false });
    expect(guest.capabilities.registers).toBe(false);
    const tasks = guest.tasks({ threads: true });
    expect(await guest.memory.scan(Buffer.from('swapper/0'))).not.toEqual([]);
    const zeroes = { pages: 0 };
    for (let at = 0n; at < size; at += BigInt(64 * MIB)) {
      const bytes = guest.memory.read(at, 64 * MIB);
      for (let page = 0; page < bytes.length; page += 4096)
        if (bytes.readBigUInt64LE(page) === 0n) zeroes.pages++;
    }
    expect(zeroes.pages).toBeGreaterThan((1024 * MIB) / 4096 / 2);
    const after = inMemory(lab.pid, size);
    expect(after.pages).toBe(before.pages);
    expect(Math.abs(after.resident - before.resident)).toBeLessThan(4);
    expect(
      compareTasks(
        truth,
        tasks.map((task) => task.toJSON()),
      ),
    ).toEqual([]);
    await guest.close();
  });
});
