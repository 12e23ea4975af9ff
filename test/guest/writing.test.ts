import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attach, type Guest, type StructObject } from 'node-libvmi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { NO_LIBVMI } from '../libvmi/support/real.js';

const main = join(fileURLToPath(new URL('../..', import.meta.url)), 'dist/cli/main.js');
const READ_ONLY = expect.objectContaining({ code: 'VMI_READ_ONLY' });

/** How this process has what a guest's RAM is in: mappings, and access modes of descriptors. */
function held(path: RegExp): string[] {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const mappings = maps.filter((line) => path.test(line)).map((line) => line.split(' ')[1]!);
  const descriptors = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      if (!path.test(readlinkSync(`/proc/self/fd/${fd}`))) return [];
      const flags = /^flags:\s+0*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!;
      return [(Number.parseInt(flags, 8) & 3) === 0 ? 'read-only' : 'writable'];
    } catch {
      // The descriptor that listed the others.
      return [];
    }
  });
  return [...mappings, ...descriptors].sort();
}

/**
 * Starts a shell in the guest that waits, and then tells what its variable holds; it has told once.
 * It waits without a child: a fork leaves its pages read-only until it writes them.
 */
const PROGRAM = 'x=before-the-write; echo $x > /tmp/told; read y < /tmp/go; echo $x > /tmp/told';
const WAITING = `rm -f /tmp/go /tmp/told; mkfifo /tmp/go; setsid sh -c '${PROGRAM}' < /dev/null > /dev/null 2>&1 & echo $! > /tmp/pid; until [ -s /tmp/told ]; do sleep 0.1; done`;

/** Writes in every way there is; a program in the guest reads each. */
async function writeAndSee(guest: Guest, lab: LabGuest): Promise<void> {
  const shell = async (line: string) => (await lab.shell(line)).trim();
  // A member of a structure.
  await shell(WAITING);
  const pid = Number(await shell('cat /tmp/pid'));
  const task = guest.object('task_struct', guest.task(pid)) as StructObject;
  task.$member('comm').write('renamed');
  expect(await shell(`cat /proc/${pid}/comm`)).toBe('renamed');

  // A variable of the kernel, as a value and as bytes.
  const { objects } = guest;
  objects.reference('int', guest.symbol('panic_timeout')).write(-7);
  expect(await shell('cat /proc/sys/kernel/panic')).toBe('-7');
  guest.write(guest.symbol('panic_timeout'), Buffer.from([11, 0, 0, 0]));
  expect(await shell('cat /proc/sys/kernel/panic')).toBe('11');

  // User memory, by the process's own page table.
  const before = Buffer.from('before-the-write');
  const places: bigint[] = [];
  for await (const hit of guest.search(before, { pid })) places.push(hit.address);
  expect(places).not.toEqual([]);
  for (const address of places) guest.write(address, Buffer.from('behind'), { pid });
  await shell('rm /tmp/told; echo > /tmp/go; until [ -s /tmp/told ]; do sleep 0.1; done');
  expect(await shell('cat /tmp/told')).toBe('behind-the-write');

  // Physical memory, across a page: what is written there is what is there.
  const at = guest.translate(guest.symbol('panic_timeout'));
  guest.writePhysical(at, Buffer.from([12, 0, 0, 0]));
  expect(await shell('cat /proc/sys/kernel/panic')).toBe('12');
}

/** Refuses what must not be, and leaves everything as it was. */
function refuseRest(guest: Guest): void {
  const { memory } = guest;
  const text = guest.symbol('_text');
  const old = guest.read(text, 16);
  // The kernel's text is mapped read-only.
  expect(() => guest.write(text, Buffer.alloc(16))).toThrow(READ_ONLY);
  expect(guest.read(text, 16)).toEqual(old);
  // The last page of RAM and what comes after it: nothing of it is written.
  const end = memory.end - 8n;
  const last = memory.read(end, 8);
  expect(() => guest.writePhysical(end, Buffer.alloc(16, 0xaa))).toThrow(
    expect.objectContaining({
      code: 'VMI_FAULT',
      write: true,
      address: memory.end,
      transferred: 0,
    }),
  );
  expect(memory.read(end, 8)).toEqual(last);
  expect(() => guest.write(0n, Buffer.alloc(1))).toThrow(/^cannot write 1 bytes at 0x0/);
  expect(() => guest.write(text, 'text' as never)).toThrow(TypeError);
  const task = guest.object('task_struct', guest.task(1)) as StructObject;
  expect(() => task.$member('pid').write(2 ** 31)).toThrow(RangeError);
  expect(() => task.$member('comm').write('a name that is far too long')).toThrow(RangeError);
  expect(() => task.$member('se').write({})).toThrow(expect.objectContaining({ code: 'VMI_TYPE' }));
  expect(() => task.$snapshot().$member('comm').write('x')).toThrow(/a snapshot is a copy/);
}

describe.each([
  ['shared RAM', 'file', (lab: LabGuest) => `qemu:${lab.pid}`],
  ['anonymous RAM', undefined, (lab: LabGuest) => `qemu:${lab.pid}`],
] as const)('writing a guest, %s', (_, backend, targetOf) => {
  let lab: LabGuest;
  beforeAll(async () => {
    lab = await bootGuest({ suite: 'bookworm', memory: 256, cpus: 1, ...(backend && { backend }) });
  });
  afterAll(() => lab?.close());

  it('is refused unless it was asked for', async () => {
    const guest = await attach(targetOf(lab));
    try {
      expect(guest.capabilities.write).toBe(false);
      const address = guest.symbol('panic_timeout');
      const old = guest.read(address, 4);
      const task = guest.object('task_struct', guest.task(1)) as StructObject;
      const attempts = [
        () => guest.write(address, Buffer.from([1, 2, 3, 4])),
        () => guest.write(address, Buffer.from([1, 2, 3, 4]), { readOnly: true }),
        () => guest.writePhysical(guest.translate(address), Buffer.from([1, 2, 3, 4])),
        () => guest.objects.reference('int', address).write(5),
        () => task.$member('comm').write('x'),
      ];
      for (const attempt of attempts) expect(attempt).toThrow(READ_ONLY);
      expect(guest.read(address, 4)).toEqual(old);
      if (lab.memoryPath !== undefined) {
        const path = new RegExp(lab.memoryPath);
        expect(new Set(held(path))).toEqual(new Set(['r--s', 'read-only']));
      }
    } finally {
      await guest.close();
    }
  });

  it('is seen by programs in the guest', async () => {
    const guest = await attach(targetOf(lab), { write: true });
    try {
      expect(guest.capabilities.write).toBe(true);
      await writeAndSee(guest, lab);
      refuseRest(guest);
      // The descriptor can be written then; the mapping never.
      if (lab.memoryPath !== undefined)
        expect(held(new RegExp(lab.memoryPath))).toEqual(
          expect.arrayContaining(['r--s', 'writable']),
        );
    } finally {
      await guest.close();
    }
  });

  it.runIf(backend === 'file' && NO_LIBVMI === undefined)(
    "is seen through libvmi's file driver, too",
    async () => {
      const guest = await attach(`libvmi:${lab.memoryPath}`, { write: true });
      try {
        await writeAndSee(guest, lab);
        refuseRest(guest);
      } finally {
        await guest.close();
      }
      const copied = { kind: 'libvmi', driver: 'file', name: lab.memoryPath!, map: false } as const;
      await expect(attach(copied, { write: true })).rejects.toMatchObject({
        code: 'VMI_UNSUPPORTED',
      });
    },
  );

  it('is shown by vmi write, and done with --yes', async () => {
    const vmi = (...args: string[]) => {
      const done = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
      return { status: done.status, out: done.stdout, err: done.stderr };
    };
    const panic = async () => (await lab.shell('cat /proc/sys/kernel/panic')).trim();
    const was = await panic();
    const words = ['write', targetOf(lab), 'panic_timeout', '2a000000'];
    const shown = vmi(...words);
    expect(shown).toMatchObject({ status: 0, err: expect.stringContaining('nothing was written') });
    expect(shown.out).toMatch(/^- 0x[0-9a-f]+ .*\n\+ 0x[0-9a-f]+ {2}2a 00 00 00/);
    expect(await panic()).toBe(was);
    expect(vmi(...words, '--yes').status).toBe(0);
    expect(await panic()).toBe('42');
    expect(vmi('write', targetOf(lab), '_text', '90', '--yes')).toMatchObject({
      status: 1,
      err: expect.stringContaining('the guest maps this page read-only'),
    });
    const code = "guest.objects.reference('int', guest.symbol('panic_timeout')).write(43)";
    expect(vmi('run', targetOf(lab), '-e', code).status).toBe(1);
    expect(vmi('run', targetOf(lab), '--write', '-e', code).status).toBe(0);
    expect(await panic()).toBe('43');
  });
});

it('is refused of an image', async () => {
  await expect(attach('image:/dev/null', { write: true })).rejects.toMatchObject({
    code: 'VMI_UNSUPPORTED',
  });
});
