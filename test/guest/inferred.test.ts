import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportIsf } from '../../lib/export/isf.js';
import { exportJson } from '../../lib/export/json.js';
import { attach, type Guest } from '../../lib/index.js';
import { KernelCpus } from '../../lib/kernel/cpus.js';
import { inferLayout } from '../../lib/kernel/layout/infer.js';
import type { Inference } from '../../lib/kernel/layout/inference.js';
import { TOKEN_PATTERN } from '../../lib/kernel/symbols/kallsyms-tokens.js';
import { guestImage, hasGuestImage } from '../hostile/image.mjs';
import { wipe } from '../lab/wipe.mjs';

/** How far the head of the PID tree is from its namespace is known, not what lies between. */
const WITHIN_NAMESPACE = ['pid_namespace.idr', 'idr.idr_rt', 'xarray.xa_head'];

/** Variables that are found by their contents on all of these kernels. */
const FOUND = [
  'linux_banner',
  'init_top_pgt',
  'init_task',
  'init_pid_ns',
  '__per_cpu_offset',
  'this_cpu_off',
  'cpu_tlbstate',
];

/** All that is known of the tasks of a guest, as text. */
function answers(guest: Guest): string {
  const list = guest.tasks({ threads: true }).map((task) => task.toJSON());
  const all = {
    list,
    found: list.map(({ pid }) => guest.task(pid).toJSON()),
    cross: guest.crossView().map(({ task, missing }) => [task.pid, missing]),
    cpus: guest.cpus().map(({ cpu, task, cr3 }) => [cpu, task.pid, cr3]),
  };
  return JSON.stringify(all, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
}

// Kernels whose image is not in the lab's cache are not booted for this: matrix and survey do.
const suites = ['bookworm', 'bullseye', 'trixie', 'sid', 'experimental'] as const;

describe.each(suites)('the layout of a real kernel of %s, with its BTF hidden', (suite) => {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-inferred-'));
  const ram = join(folder, 'guest.ram');
  let guest: Guest | undefined;
  let inference: Inference;
  let right = '';

  beforeAll(async () => {
    if (suite !== 'bookworm' && !(await hasGuestImage(suite))) return;
    execFileSync('cp', ['--sparse=always', (await guestImage(suite)).ram, ram]);
    guest = await attach(`image:${ram}`, { cache: false });
    right = answers(guest);
    const { kernel } = guest;
    const { memory, symbols } = kernel;
    inference = inferLayout({ memory, symbols, cpus: new KernelCpus(kernel) });
    wipe(ram, [memory.translate(guest.symbol('__start_BTF'))]);
  });
  afterAll(async () => {
    await guest?.close();
    if (existsSync(folder)) rmSync(folder, { recursive: true, force: true });
  });

  it('is inferred as its BTF has it', ({ skip }) => {
    if (guest === undefined) return skip(`no image of a guest of ${suite} is in the lab's cache`);
    const { types } = guest.kernel;
    const offset = (name: string) => {
      const [struct, member] = name.split('.') as [string, string];
      // `state` became `__state` in 5.14.
      const old = member === '__state' ? types.findOffset(struct, 'state') : undefined;
      return types.findOffset(struct, member) ?? old;
    };
    for (const [name, place] of inference.offsets) {
      if (!WITHIN_NAMESPACE.includes(name)) expect(place, name).toBe(offset(name));
    }
    const sum = (of: (name: string) => number | undefined) =>
      WITHIN_NAMESPACE.reduce((total, name) => total + of(name)!, 0);
    expect(sum((name) => inference.offsets.get(name as 'idr.idr_rt'))).toBe(sum(offset));
    expect([...inference.undecided.keys()]).toEqual([]);
    expect(inference.offsets.size).toBeGreaterThanOrEqual(30);
  });

  it('gives the same answers', async ({ skip }) => {
    if (guest === undefined) return skip(`no image of a guest of ${suite} is in the lab's cache`);
    const cache = join(folder, 'cache');
    for (const cached of [false, true]) {
      await using plain = await attach(`image:${ram}`, { cache });
      expect(plain.kernel.provenance).toMatchObject({ types: 'inferred', cached });
      expect(answers(plain) === right).toBe(true);
    }
  });

  it('can be written, and read again', async ({ skip }) => {
    if (guest === undefined) return skip(`no image of a guest of ${suite} is in the lab's cache`);
    const profile = join(folder, 'profile.json');
    {
      await using plain = await attach(`image:${ram}`, { cache: false });
      writeFileSync(profile, [...exportJson(plain.kernel)].join(''));
      const symbolFile = () => [...exportIsf(plain.kernel, { version: '0' })];
      expect(symbolFile).toThrow(expect.objectContaining({ code: 'VMI_UNSUPPORTED' }));
    }
    await using again = await attach(`image:${ram}`, { cache: false, profile });
    expect(again.kernel.provenance.types).toBe(profile);
    expect(answers(again) === right).toBe(true);
  });

  it('gives the same answers with its symbols hidden, too', async ({ skip }) => {
    if (guest === undefined) return skip(`no image of a guest of ${suite} is in the lab's cache`);
    wipe(ram, await guest.memory.scan(TOKEN_PATTERN, { max: 4096 }));
    await using plain = await attach(`image:${ram}`, { cache: false });
    expect(plain.kernel.symbols.count).toBe(0);
    expect(plain.kernel.provenance.types).toBe('inferred');
    expect(plain.kernel.banner).toBe(guest.kernel.banner);
    for (const name of FOUND) {
      expect(plain.symbol(name), name).toBe(guest.symbol(name));
    }
    expect(answers(plain) === right).toBe(true);
  });
});
