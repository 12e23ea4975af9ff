import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type CrossRow, type Guest, VmiError } from '../../lib/index.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const CHUNK = 1 << 20;

/** A copy of the file of a guest's RAM, taken piece by piece while the guest goes on. */
async function copy(from: string, to: string, pause: number): Promise<void> {
  const source = openSync(from, 'r');
  const target = openSync(to, 'w');
  const bytes = Buffer.alloc(CHUNK);
  for (let at = 0; at < fstatSync(source).size; at += CHUNK) {
    readSync(source, bytes, 0, CHUNK, at);
    writeSync(target, bytes, 0, CHUNK, at);
    if (pause > 0) await sleep(pause);
  }
  closeSync(source);
  closeSync(target);
}

/** The rows of a cross view by PID; it says what is not whole, and misses nothing there. */
function crossOf(guest: Guest): Map<number, CrossRow> {
  const cross = guest.crossView();
  expect(cross.torn.length > 0).toBe(cross.misfits.length > 0);
  if (guest.tasks({ threads: true }).misfits.length > 0) expect(cross.torn).not.toEqual([]);
  for (const { missing } of cross)
    for (const view of missing) expect(cross.torn).not.toContain(view);
  return new Map(cross.map((row) => [row.task.pid, row]));
}

describe('a copy of memory that was taken while the guest ran', () => {
  let lab: LabGuest;
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-copied-'));
  beforeAll(async () => {
    lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 256, backend: 'file' });
  });
  afterAll(async () => {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it.each([0, 1, 4])('has every task that was there all the time: %i ms a MiB', async (pause) => {
    const before = await lab.truth();
    await lab.command('churn on');
    const image = join(folder, 'copy');
    await copy(lab.memoryPath!, image, pause);
    await lab.command('churn off');
    const after = await lab.truth();
    const guest = await attach(`image:${image}`);
    const tasks = guest.tasks({ threads: true });
    const found = new Map(tasks.map((task) => [task.pid, task]));
    expect(found.size).toBe(tasks.length);
    const stayed = before.tasks.filter(
      ({ pid, startTime }) => pid !== 0 && after.task(pid)?.startTime === startTime,
    );
    expect(stayed.length).toBeGreaterThan(100);
    for (const { pid, tgid, comm } of stayed) {
      expect(found.get(pid), comm.toString()).toBeDefined();
      expect(found.get(pid)).toMatchObject({ pid, tgid });
    }
    // What else is there was started by the churn, after all of these.
    const newest = stayed.reduce(
      (most, task) => (task.startTime > most ? task.startTime : most),
      0n,
    );
    for (const task of tasks)
      if (!stayed.some(({ pid }) => pid === task.pid))
        expect(task.startTime).toBeGreaterThan(newest);
    if (tasks.misfits.length > 0) console.log(`${tasks.misfits.length} misfits, as is right`);
    expect(guest.taskColumns().misfits.length > 0).toBe(guest.tasks().misfits.length > 0);
    const cross = crossOf(guest);
    for (const { pid } of stayed) expect(cross.get(pid)?.missing, `PID ${pid}`).toEqual([]);
    await guest.close();
  });

  it.each([16, 96, 160])('cut short by %i MiB, has what is left and says so', async (mebibytes) => {
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    const core = join(folder, 'core');
    rmSync(core, { force: true });
    await lab.dumpElf(core);
    await lab.cont();
    await lab.thaw();
    truncateSync(core, statSync(core).size - (mebibytes << 20));
    const guest = await attach(`image:${core}`).catch((error: VmiError) => error);
    if (guest instanceof VmiError) {
      // What names the kernel was in the part that is missing.
      expect(guest.code).toBe('VMI_ATTACH');
      return;
    }
    expect(guest.memory.description).toMatch(/cut short: \d+ MiB are missing/);
    const tasks = guest.tasks({ threads: true });
    expect(tasks.length).toBeGreaterThan(0);
    for (const task of tasks) expect(truth.task(task.pid)?.startTime).toBe(task.startTime);
    const known = truth.tasks.filter(({ pid }) => pid !== 0);
    if (tasks.length < known.length) expect(tasks.misfits.length).toBeGreaterThan(0);
    console.log(`${tasks.length} of ${known.length} tasks, ${tasks.misfits.length} misfits`);
    const cross = crossOf(guest);
    for (const { pid } of tasks) expect(cross.has(pid), `PID ${pid}`).toBe(true);
    await guest.close();
  });
});
