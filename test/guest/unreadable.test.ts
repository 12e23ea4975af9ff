import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportJson } from '../../lib/export/json.js';
import { attach, CR3_SOURCES, type Guest, UNREADABLE } from '../../lib/index.js';
import { guestImage } from '../hostile/image.mjs';

/**
 * In no mapping of any kernel: the hole above the vmemmap. Documentation/arch/x86/x86_64/mm.rst.
 */
const NOWHERE = 0xffff_eb80_0000_0000n;

type BentTypes = Record<
  'upid' | 'task_struct' | 'xa_node',
  { size: number; members: Record<string, { offset: number }> }
>;

describe('a real guest with pointers that lead nowhere', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-unreadable-'));
  const ram = join(folder, 'guest.ram');
  let guest: Guest;
  /** PIDs of processes whose `real_cred`, `real_parent` and `mm` were bent. */
  let cred: number;
  let noCred: number;
  let parent: number;
  let mm: number;
  /**
   * PIDs of processes whose PGD is no page table, is none because it is not aligned, and is the
   * kernel's own in its image.
   */
  let notOne: number;
  let skewed: number;
  let kernels: number;
  let intact: { pid: number; cr3: bigint };

  beforeAll(async () => {
    execFileSync('cp', ['--sparse=always', (await guestImage()).ram, ram]);
    const plain = await attach(`image:${ram}`, { cache: false });
    const own = plain
      .tasks()
      .filter((task) => task.cr3Source === 'mm' && task.uid === 0 && task.pid > 1);
    const { kernel } = plain;
    const file = openSync(ram, 'r+');
    const put = (address: bigint, value: bigint) =>
      writeSync(file, BigUint64Array.of(value), 0, 8, Number(kernel.memory.translate(address)));
    const member = (name: string) => BigInt(kernel.types.offset('task_struct', name));
    const next = () => {
      const one = own.pop();
      if (one === undefined) throw new Error('too few tasks');
      return one;
    };
    const bent = (name: string, value: bigint) => {
      const { pid, address } = next();
      put(address + member(name), value);
      return pid;
    };
    cred = bent('real_cred', NOWHERE);
    noCred = bent('real_cred', 0n);
    parent = bent('real_parent', 0n);
    mm = bent('mm', NOWHERE);
    const pgd = BigInt(kernel.types.offset('mm_struct', 'pgd'));
    const [one, other, last] = [next(), next(), next()];
    put(one.mm! + pgd, one.address & ~0xfffn);
    // All but aligned: the entry that is looked at is the kernel's own.
    put(other.mm! + pgd, other.pgd! + 8n);
    put(other.pgd! + 8n + 511n * 8n, plain.memory.readU64(kernel.root + 511n * 8n));
    put(last.mm! + pgd, kernel.symbols.address('init_top_pgt'));
    [notOne, skewed, kernels] = [one.pid, other.pid, last.pid];
    closeSync(file);
    const { pid, cr3 } = next();
    intact = { pid, cr3: cr3 ?? 0n };
    await plain.close();
    guest = await attach(`image:${ram}`, { cache: false });
  });

  afterAll(async () => {
    await guest?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const task = (pid: number) => {
    const found = guest.tasks().find((one) => one.pid === pid);
    if (found === undefined) throw new Error(`no task ${pid}`);
    return found;
  };

  it('says null and not 0 for a user that cannot be read, and still answers', () => {
    const bent = task(cred);
    expect([bent.uid, bent.unreadable, bent.cr3Source]).toEqual([null, ['uid'], 'mm']);
    expect(JSON.parse(JSON.stringify(task(cred)))).toMatchObject({
      uid: null,
      unreadable: ['uid'],
    });
    expect([task(intact.pid).uid, task(intact.pid).unreadable]).toEqual([0, []]);
    expect(task(intact.pid).toJSON()).not.toHaveProperty('unreadable');
  });

  it('says null for a parent that is none', () => {
    expect(task(parent).ppid).toBeNull();
    expect(task(intact.pid).ppid).not.toBeNull();
  });

  it('marks both in the columns', () => {
    const columns = guest.taskColumns();
    expect(columns.uid[columns.pid.indexOf(cred)]).toBe(UNREADABLE);
    expect(columns.uid[columns.pid.indexOf(noCred)]).toBe(UNREADABLE);
    expect(columns.ppid[columns.pid.indexOf(parent)]).toBe(UNREADABLE);
    expect(columns.uid[columns.pid.indexOf(intact.pid)]).toBe(0);
  });

  it('takes for a page table only what is one', () => {
    const columns = guest.taskColumns();
    const inColumns = (pid: number) => {
      const row = columns.pid.indexOf(pid);
      return [CR3_SOURCES[columns.cr3Source[row]!], columns.cr3[row]];
    };
    for (const pid of [notOne, skewed]) {
      expect(task(pid).toJSON()).toMatchObject({ cr3: null, cr3Source: 'corrupt' });
      expect(() => task(pid).cr3).toThrow(/whose page table does not map the kernel's text/);
      expect(inColumns(pid)).toEqual(['corrupt', 0n]);
    }
    // In the image, not in the direct map.
    expect([task(kernels).cr3Source, task(kernels).cr3]).toEqual(['mm', guest.kernel.cr3]);
    expect(inColumns(kernels)).toEqual(['mm', guest.kernel.cr3]);
    expect(inColumns(intact.pid)).toEqual(['mm', intact.cr3]);
  });

  it.each<[string, string, (types: BentTypes) => void]>([
    [
      'a member lies outside its structure',
      'upid.nr is at 31 in the profile',
      (types) => (types.upid.members.nr!.offset = 31),
    ],
    [
      'a member is far away',
      'xa_node.slots is at 16777224 in the profile',
      (types) => (types.xa_node.members.slots!.offset = 0x100_0008),
    ],
    [
      'a link is far away',
      'task_struct.thread_node is at 2147483640 in the profile',
      (types) => (types.task_struct.members.thread_node!.offset = 0x7fff_fff8),
    ],
    ['a task takes no room', 'task_struct of 0 bytes', (types) => (types.task_struct.size = 0)],
  ])('refuses types in which %s', async (_, message, bend) => {
    const profile = JSON.parse([...exportJson(guest.kernel)].join('')) as { types: BentTypes };
    bend(profile.types);
    const path = join(folder, 'bent.json');
    writeFileSync(path, JSON.stringify(profile));
    const bent = attach(`image:${ram}`, { cache: false, profile: path }).then(async (damaged) => {
      try {
        return damaged.tasks();
      } finally {
        await damaged.close();
      }
    });
    await expect(bent).rejects.toMatchObject({
      code: expect.stringMatching(/^VMI_(ATTACH|TYPE)$/),
      message: expect.stringContaining(message),
    });
  });

  it('names the tasks of which nobody can say whether they run on a CR3', async () => {
    const found = guest.cr3ToTasks(intact.cr3);
    expect(found.map(({ pid }) => pid)).toContain(intact.pid);
    expect(found.corrupt.map(({ pid }) => pid)).toContain(mm);
    expect(found.corrupt.map(({ pid }) => pid)).not.toContain(intact.pid);
  });
});
