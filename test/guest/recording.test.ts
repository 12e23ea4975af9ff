import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  attach,
  type Explanation,
  type Guest,
  openSource,
  parseTarget,
  Recorder,
  VirtualMemory,
} from 'node-libvmi';
import { afterAll, expect, it } from 'vitest';
import { bootGuest } from '../lab/guest.mjs';

const main = join(fileURLToPath(new URL('../..', import.meta.url)), 'dist/cli/main.js');
const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-recording-'));
const file = join(folder, 'guest.rec');
const image = `replay:${file}`;
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What was read is in the core, at its physical address; VMCOREINFO is its note. */
async function checkCore(guest: Guest, core: Buffer): Promise<void> {
  const path = join(folder, 'guest.core');
  writeFileSync(path, core);
  expect(core.includes(`OSRELEASE=${guest.kernel.release}\n`)).toBe(true);
  expect(core.length).toBeLessThan(16 << 20);
  const source = await openSource(parseTarget(`image:${path}`));
  const memory = source.candidates[0]!.open();
  try {
    const { root, levels } = guest.kernel;
    const kernel = new VirtualMemory(memory, root, levels);
    // Through the page tables that it has, at both addresses of the page.
    for (const address of [guest.symbol('init_task'), guest.task(1).address]) {
      const pid = address + BigInt(guest.type('task_struct').member('pid').offset);
      expect(kernel.readU32(pid)).toBe(guest.read(pid, 4).readUInt32LE());
    }
  } finally {
    await memory.close();
    await source.close();
  }
}

function vmi(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

it('answers what was recorded, with no guest there, and nothing else', async () => {
  const lab = await bootGuest({ suite: 'bookworm', backend: 'memfd', memory: 512, cpus: 1 });
  let recorded: ReturnType<typeof vmi>;
  let found: unknown;
  let explained: Explanation[] = [];
  try {
    const asked = ['ps', ',', 'explain', '1', ',', 'stacks', '2', ',', 'search', 'swapper/0'];
    recorded = vmi('record', `qemu:${lab.pid}`, '--pause', '-o', file, '--', ...asked);
    // From the API, of a guest that runs: what a task is does not change.
    const guest = await attach(`qemu:${lab.pid}`);
    const recorder = await Recorder.start(guest);
    const again = await recorder.attach();
    found = again.task(1).toJSON();
    const tasks = again.tasks();
    explained = tasks.map(({ pid }) => again.explain(pid));
    await again.close();
    writeFileSync(join(folder, 'api.rec'), recorder.pack());
    await checkCore(guest, recorder.packCore());
    // Nothing runs, and nothing is lost, where the file cannot be written.
    const nowhere = join(folder, 'none', 'guest.rec');
    const lost = vmi('record', `qemu:${lab.pid}`, '-o', nowhere, '--', 'ps');
    expect(lost).toMatchObject({ status: 74, stdout: '' });
    expect(lost.stderr).toContain(`cannot write ${nowhere}`);
    await guest.close();
  } finally {
    await lab.close();
  }
  expect(recorded.stderr).toMatch(/guest\.rec: .* [KM]iB, of .* MiB that were read\n$/);
  expect(recorded.status).toBe(0);
  const replayed = [['ps'], ['explain', '1'], ['stacks', '2'], ['search', 'swapper/0']].map(
    ([name, ...rest]) => vmi(name!, image, ...rest),
  );
  expect(replayed.map(({ status }) => status)).toEqual([0, 0, 0, 0]);
  expect(replayed.map(({ stdout }) => stdout).join('')).toBe(recorded.stdout);
  // What was read is the guest's memory: for nobody else's eyes.
  expect(statSync(file).mode & 0o777).toBe(0o600);

  const unknown = vmi('run', image, '-e', 'dmesg()');
  expect(unknown.stderr).toContain('was not read when it was made: record this question too');
  expect(unknown.status).toBe(1);

  // A listing and every task of it explained: kilobytes, answered to the byte.
  expect(statSync(join(folder, 'api.rec')).size).toBeLessThan(300_000);
  const guest = await attach(`image:${join(folder, 'api.rec')}`);
  try {
    expect(guest.tasks().map(({ pid }) => guest.explain(pid))).toEqual(explained);
    expect(guest.kernel.provenance.cached).toBe(true);
    expect(guest.task(1).toJSON()).toEqual(found);
    expect(() => guest.memory.read(0x5000, 16)).toThrow(
      expect.objectContaining({ code: 'VMI_UNSUPPORTED' }),
    );
  } finally {
    await guest.close();
  }
});

it('refuses a recording that is damaged, cut, or of another version', () => {
  const whole = readFileSync(file);
  const broken = (change: (bytes: Buffer) => Buffer) => {
    const path = join(folder, 'broken.rec');
    writeFileSync(path, change(Buffer.from(whole)));
    return vmi('ps', `image:${path}`);
  };
  const flipped = broken((bytes) => {
    bytes[bytes.length >> 1]! ^= 1;
    return bytes;
  });
  expect(flipped.stderr).toContain('damaged or cut');
  expect(broken((bytes) => bytes.subarray(0, 70_000)).stderr).toContain('damaged or cut');
  expect(broken((bytes) => bytes.subarray(0, 20)).stderr).toContain('truncated within its header');
  const later = broken((bytes) => {
    bytes[8] = 3;
    return bytes;
  });
  expect(later.stderr).toContain('of version 3, not 2');
  expect([flipped, later].map(({ status }) => status)).toEqual([3, 3]);
});

it('takes nothing else for a recording', () => {
  const path = join(folder, 'none.rec');
  writeFileSync(path, Buffer.alloc(8192));
  expect(vmi('ps', `replay:${path}`)).toMatchObject({
    status: 3,
    stderr: expect.stringContaining('is no recording'),
  });
  expect(vmi('ps', `replay:${path}.none`).stderr).toContain('there is no such file');
});
