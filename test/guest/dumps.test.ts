import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, FaultError } from '../../lib/index.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';
import {
  avmlOf,
  elfCore,
  elfNote,
  PAGE,
  type Ram,
  vmwareOf,
  xenCoreOf,
} from '../unit/memory/image/support/dumps.js';

const MIB = 1 << 20;
const makedumpfile = spawnSync('makedumpfile', ['-v']).status === 0;
if (!makedumpfile)
  console.warn(
    'dumps of makedumpfile – skipped: it is not installed (apt-get install makedumpfile)',
  );

/** One guest that stands still, in every format that its QEMU writes, and in those of others. */
describe('dumps of a real guest', () => {
  let lab: LabGuest;
  let truth: Truth;
  let ram: Ram;
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-dumps-'));
  const path = (name: string) => join(folder, name);
  beforeAll(async () => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      memory: 192,
      machine: 'pc',
    });
    truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    await lab.dumpRange(path('raw'), 0, 192 * MIB);
    const bytes = readFileSync(path('raw'));
    ram = {
      runs: [
        { first: 0, count: 0xa0 },
        { first: 0x100, count: (192 * MIB) / PAGE - 0x100 },
      ],
      page: (pfn) => bytes.subarray(pfn * PAGE, (pfn + 1) * PAGE),
    };
    await writeVmcore();
  });
  /** The same RAM as /proc/vmcore has it: with the kernel's text once more, and its VMCOREINFO. */
  const writeVmcore = async () => {
    const guest = await attach(`image:${path('raw')}`);
    const { image, pageOffset } = guest.kernel;
    const notes = await guest.memory.scan(Buffer.from('OSRELEASE='), { stride: PAGE });
    const info = guest.memory.read(notes[0]!, PAGE);
    const run = (virtual: bigint, physical: bigint, length: bigint) => ({
      virtual,
      physical,
      bytes: guest.memory.read(physical, Number(length)),
    });
    const loads = [
      run(image.virtual, image.physical, 24n << 20n),
      ...ram.runs.map(({ first, count }) => {
        const physical = BigInt(first * PAGE);
        return run(pageOffset + physical, physical, BigInt(count * PAGE));
      }),
    ];
    const text = info.subarray(0, info.indexOf(0));
    writeFileSync(path('vmcore'), elfCore(loads, elfNote('VMCOREINFO', 0, text)));
    await guest.close();
  };
  afterAll(async () => {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const isRight = async (image: string) => {
    const guest = await attach(`image:${image}`);
    const tasks = guest.tasks({ threads: true });
    expect(
      compareTasks(
        truth,
        tasks.map((task) => task.toJSON()),
      ),
    ).toEqual([]);
    expect(tasks.misfits).toEqual([]);
    await guest.close();
  };

  it.each(['elf', 'kdump-zlib', 'kdump-lzo', 'kdump-snappy'])('by QEMU: %s', async (format) => {
    const able = (await lab.qmp('query-dump-guest-memory-capability')) as { formats: string[] };
    if (!able.formats.includes(format)) {
      console.warn(`dump by QEMU in ${format} – skipped: this QEMU does not write it`);
      return;
    }
    const protocol = `file:${path(format)}`;
    await lab.qmp('dump-guest-memory', { paging: false, protocol, format });
    await isRight(path(format));
  });

  it('the memory of a crashed kernel (/proc/vmcore)', () => isRight(path('vmcore')));

  it('AVML, plain and packed', async () => {
    for (const version of [1, 2] as const) {
      writeFileSync(path('avml'), avmlOf(ram, version));
      await isRight(path('avml'));
    }
  });

  it('a core of Xen', async () => {
    writeFileSync(path('xen'), xenCoreOf(ram));
    await isRight(path('xen'));
  });

  it('VMware', async () => {
    const { memory, state } = vmwareOf(ram);
    writeFileSync(path('guest.vmem'), memory);
    writeFileSync(path('guest.vmss'), state);
    await isRight(path('guest.vmem'));
  });

  it('raw RAM in gzip', async () => {
    execFileSync('gzip', ['-1', '-k', path('raw')]);
    await isRight(path('raw.gz'));
  });

  it.runIf(makedumpfile).each([
    ['-d', '31', '-c'],
    ['-d', '31', '-l'],
    ['-d', '1', '-c'],
    ['-d', '31', '-E'],
  ])('by makedumpfile %s %s %s', async (...options) => {
    rmSync(path('filtered'), { force: true });
    execFileSync('makedumpfile', [...options, path('vmcore'), path('filtered')], { stdio: 'pipe' });
    await isRight(path('filtered'));
    const guest = await attach(`image:${path('filtered')}`);
    const into = Buffer.alloc(PAGE);
    let absent = 0;
    for (let pfn = 0x100; pfn < (192 * MIB) / PAGE; pfn++) {
      const address = BigInt(pfn * PAGE);
      if (guest.memory.absent(address)) {
        absent++;
        expect(() => guest.memory.readU64(address)).toThrow(FaultError);
      } else if (guest.memory.readInto(address, into) === PAGE) {
        expect(into.equals(ram.page(pfn)!), `page ${pfn}`).toBe(true);
      }
    }
    // Zeroes have a page in a kdump. Level 1 leaves out nothing else.
    if (options[1] === '1') expect(absent).toBe(0);
    else expect(absent).toBeGreaterThan(1000);
    await guest.close();
  });

  // The last: a guest that was migrated does not go on.
  it('a migration stream', async () => {
    await lab.qmp('migrate', { uri: `exec:cat > ${path('stream')}` });
    for (;;) {
      const { status } = (await lab.qmp('query-migrate')) as { status: string };
      expect(status).not.toBe('failed');
      if (status === 'completed') break;
    }
    await isRight(path('stream'));
  });
});
