import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportJson } from '../../lib/export/json.js';
import { attach, type Guest } from '../../lib/index.js';
import { KernelCpus } from '../../lib/kernel/cpus.js';
import type { Kernel } from '../../lib/kernel/kernel.js';
import { OTHER_MEMBERS, TASK_MEMBERS } from '../../lib/kernel/layout/members.js';
import { proveLayout } from '../../lib/kernel/layout/prove.js';
import { parsePlain } from '../../lib/kernel/profile/plain.js';
import { verifyTasks } from '../../lib/kernel/verify.js';
import { Tasks } from '../../lib/tasks/tasks.js';
import { guestImage } from '../hostile/image.mjs';

type Types = Record<
  string,
  { size: number; members: Record<string, { offset: number; size: number; type: string }> }
>;

/** What a change to a profile does, and the members that it puts where others are. */
interface Change {
  readonly what: string;
  readonly members: readonly string[];
  apply(types: Types): void;
}

/** Every member by which tasks are read: shifted by half a word and by a word, and swapped. */
function changes(types: Types): Change[] {
  return [...TASK_MEMBERS, ...OTHER_MEMBERS].flatMap((name) => {
    const [struct, member] = name.split('.') as [string, string];
    const members = types[struct]?.members;
    if (members?.[member] === undefined) return [];
    const shifts = [-8, -4, 4, 8]
      .filter((by) => members[member]!.offset + by >= 0)
      .map((by) => ({
        what: `${name} ${by > 0 ? '+' : ''}${by}`,
        members: [name],
        apply: (types: Types) => {
          types[struct]!.members[member]!.offset += by;
        },
      }));
    const sorted = Object.keys(members).sort((a, b) => members[a]!.offset - members[b]!.offset);
    const at = sorted.indexOf(member);
    const swaps = [sorted[at - 1], sorted[at + 1]]
      .filter((other) => other !== undefined)
      .map((other) => ({
        what: `${name} swapped with ${other}`,
        members: [name, `${struct}.${other}`],
        apply: (types: Types) => {
          const both = types[struct]!.members;
          const { offset } = both[member]!;
          both[member]!.offset = both[other]!.offset;
          both[other]!.offset = offset;
        },
      }));
    return [...shifts, ...swaps];
  });
}

/** All that the tasks of a guest are asked for, as text. */
function answers(kernel: Kernel): string {
  const tasks = new Tasks(kernel);
  const list = tasks.list({ threads: true }).map((task) => task.toJSON());
  const all = {
    list,
    found: list.filter((_, i) => i % 5 === 0).map(({ pid }) => tasks.find(pid)?.toJSON()),
    cross: tasks.cross().map(({ task, missing }) => [task.pid, missing]),
    cpus: tasks.cpus().map(({ cpu, task }) => [cpu.cpu, cpu.loadedPgd, task.pid]),
  };
  return JSON.stringify(all, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
}

describe('the layout of a real guest', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-layout-'));
  const ram = join(folder, 'guest.ram');
  let guest: Guest;
  let profile: { types: Types; symbols: unknown[] };

  beforeAll(async () => {
    execFileSync('cp', ['--sparse=always', (await guestImage()).ram, ram]);
    guest = await attach(`image:${ram}`, { cache: false });
    profile = JSON.parse([...exportJson(guest.kernel)].join(''));
    profile.symbols = [];
    // From now on the guest has no BTF of its own that a profile could be held against.
    const btf = guest.kernel.memory.translate(guest.symbol('__start_BTF'));
    const file = openSync(ram, 'r+');
    writeSync(file, Buffer.alloc(32), 0, 32, Number(btf));
    closeSync(file);
  });
  afterAll(async () => {
    await guest?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** The guest's kernel with the types of a profile, held against its tasks. */
  function kernelBy(types: Types): Kernel {
    const { kernel } = guest;
    const bytes = Buffer.from(JSON.stringify({ ...profile, types }));
    const given = parsePlain(bytes, 'the profile').types!;
    verifyTasks(kernel.memory, kernel.symbols, given, kernel.image);
    const { memory, symbols } = kernel;
    const cpus = new KernelCpus({ memory, symbols, types: given });
    proveLayout({ memory, symbols, types: given, cpus }, true);
    return Object.create(kernel, {
      types: { value: given },
      onlineCpus: { value: () => cpus.online() },
      perCpuOffset: { value: (cpu: number) => cpus.perCpuOffset(cpu) },
      remember: { value: async () => false },
    }) as Kernel;
  }

  it('is held against the tasks: a member elsewhere is refused by name, or changes nothing', () => {
    const right = answers(kernelBy(profile.types));
    const all = changes(profile.types);
    expect(all.length).toBeGreaterThan(150);
    let refused = 0;
    for (const { what, members, apply } of all) {
      const types = structuredClone(profile.types);
      apply(types);
      let kernel: Kernel;
      try {
        kernel = kernelBy(types);
      } catch (error) {
        const { message, code } = error as Error & { code?: string };
        expect(code, what).toBe('VMI_CORRUPT');
        expect(
          members.some((name) => message.includes(`${name} at `)),
          message,
        ).toBe(true);
        refused++;
        continue;
      }
      expect(answers(kernel) === right, `${what} is believed and gives another answer`).toBe(true);
    }
    // A swap of the two names of one place is none.
    expect(refused).toBeGreaterThan(all.length - 6);
  }, 300_000);

  it('is read from a profile where the guest has no BTF', async () => {
    const path = join(folder, 'profile.json');
    writeFileSync(path, JSON.stringify(profile));
    await using plain = await attach(`image:${ram}`, { cache: false, profile: path });
    expect(plain.kernel.provenance.types).toBe(path);
    expect(plain.tasks().map(({ pid, cr3 }) => [pid, cr3])).toEqual(
      guest.tasks().map(({ pid, cr3 }) => [pid, cr3]),
    );
  });

  it.each([
    ['task_struct', 'tgid'],
    ['task_struct', 'start_time'],
    ['cred', 'uid'],
  ])('is refused at attach where %s.%s is elsewhere', async (struct, member) => {
    const types = structuredClone(profile.types);
    types[struct]!.members[member]!.offset += 4;
    const path = join(folder, `${member}.json`);
    writeFileSync(path, JSON.stringify({ ...profile, types }));
    const place = `${struct}.${member} at ${types[struct]!.members[member]!.offset}`;
    await expect(attach(`image:${ram}`, { cache: false, profile: path })).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringContaining(place),
    });
  });

  it('is refused where an entry of libvmi.conf is not what its BTF says', async () => {
    const whole = (await guestImage()).ram;
    const { types } = guest.kernel;
    const at = (struct: string, member: string) => types.offset(struct, member);
    const keys = {
      linux_tasks: at('task_struct', 'tasks'),
      linux_mm: at('task_struct', 'mm'),
      linux_pid: at('task_struct', 'pid'),
      linux_name: at('task_struct', 'comm'),
      linux_pgd: at('mm_struct', 'pgd'),
    };
    for (const [key, offset] of Object.entries(keys)) {
      for (const by of [-8, 8]) {
        const path = join(folder, `${key}.conf`);
        const lines = Object.entries({ ...keys, [key]: offset + by });
        const text = lines.map(([name, value]) => `${name} = ${value};`).join('\n');
        writeFileSync(path, `guest { ostype = "Linux"; ${text} }`);
        const attached = attach(`image:${whole}`, { cache: false, profile: path });
        await expect(attached, `${key} ${by}`).rejects.toMatchObject({
          code: 'VMI_ATTACH',
          message: expect.stringContaining(` at ${offset + by}`),
        });
      }
    }
  });
});
