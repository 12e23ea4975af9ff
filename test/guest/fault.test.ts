import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, Guest } from '../../lib/index.js';
import { Kernel } from '../../lib/kernel/kernel.js';
import { REGISTERS } from '../../lib/libvmi/registers.js';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import type { PhysicalMemory } from '../../lib/memory/physical-memory.js';
import { guestImage } from '../hostile/image.mjs';
import {
  codeOf,
  differences,
  type Operation,
  operations,
  type Rows,
} from '../hostile/operations.mjs';
import { Random } from '../hostile/random.mjs';
import { survey as surveyOf } from '../hostile/survey.mjs';

const SOURCE = fileURLToPath(new URL('../fault/failing.c', import.meta.url));
/** No bend: whatever differs is wrong. */
const STRAIGHT = { seed: 0, what: [], patches: [], hides: false };
const FOR_EVER = 1_000_000_000;
/** Reads that are failed per operation: all of the first, then some of the rest. */
const FIRST = 24;
const REST = 40;

const descriptors = () => readdirSync('/proc/self/fd').length;

describe('a real guest whose memory cannot always be read', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-fault-'));
  const library = join(folder, 'failing.so');
  let control: number;
  let ram: string;
  let survey: Awaited<ReturnType<typeof surveyOf>>;
  let memory: PhysicalMemory;
  let guest: Guest;
  let root: bigint;

  /** Fails `count` reads from the `first` on (0: none), whole or short; returns the reads since the last order. */
  function order(first = 0, count = 1, short = false): number {
    const words = new BigUint64Array(4);
    readSync(control, words, 0, 8, 0);
    const reads = Number(words[0]);
    words.set([0n, BigInt(first), BigInt(count), short ? 1n : 0n]);
    writeSync(control, words, 0, 32, 0);
    return reads;
  }

  const open = () => openLibvmi({ driver: 'kvm', name: ram, library, direct: true });
  const load = (from: PhysicalMemory) => Kernel.load(from, { cache: false });

  beforeAll(async () => {
    const image = await guestImage();
    ram = image.ram;
    const { cr0, cr3, cr4 } = image.registers[0]!;
    const numbers = (['CR0', 'CR3', 'CR4'] as const).map(
      (name) => `-DFAILING_${name}=${REGISTERS[name]}`,
    );
    execFileSync('cc', [
      '-Wall',
      '-Wextra',
      '-O1',
      '-shared',
      '-fPIC',
      ...numbers,
      '-o',
      library,
      SOURCE,
    ]);
    control = openSync(join(folder, 'control'), 'w+');
    process.env.FAILING_CONTROL = join(folder, 'control');
    process.env.FAILING_REGISTERS = [cr0, cr3, cr4].join();
    order();
    const plain = await attach(`image:${ram}`, { cache: false });
    survey = await surveyOf(plain, ram);
    root = plain.kernel.root;
    await plain.close();
    memory = await open();
    guest = new Guest('libvmi:failing', memory, await load(memory));
  });
  afterAll(async () => {
    await guest?.close();
    closeSync(control);
    delete process.env.FAILING_CONTROL;
    delete process.env.FAILING_REGISTERS;
    rmSync(folder, { recursive: true, force: true });
  });

  /** What an operation gives: rows, nothing, or the code of an error. Any other error fails the test. */
  async function outcome(operation: Operation): Promise<Rows | string | undefined> {
    try {
      return await operation.run(guest);
    } catch (error) {
      const code = codeOf(error);
      if (code === undefined) throw error;
      return code;
    }
  }

  const names = [
    'tasks',
    'tasks threads',
    'taskColumns',
    'task',
    'findTask',
    'pidToCr3',
    'cr3ToTasks',
    'cpus',
    'crossView',
    'read',
    'read of a process',
    'readString',
    'translate',
    'mappings',
  ]; // prettier-ignore
  it.each(names)(
    '%s ends with what is right, or with an error, and goes on to work',
    async (name) => {
      const operation = () =>
        operations(survey, new Random(7), false).find((one) => one.name === name)!;
      order();
      const expected = await outcome(operation());
      const reads = order();
      expect(typeof expected === 'string' ? expected : '').not.toMatch(/CORRUPT|CLOSED|BUSY/);
      expect(reads).toBeGreaterThan(0);
      const open = descriptors();
      const points = Array.from({ length: Math.min(reads, FIRST) }, (_, i) => i + 1);
      for (let i = 0; i < REST; i++) {
        const point = FIRST + Math.ceil(((reads - FIRST) * (i + 1)) / REST);
        if (point > FIRST) points.push(point);
      }
      const wrong: string[] = [];
      let failures = 0;
      for (const first of new Set(points)) {
        for (const count of [1, FOR_EVER]) {
          for (const short of first <= FIRST ? [false, true] : [first % 2 === 0]) {
            order(first, count, short);
            const got = await outcome(operation());
            order();
            const how = `${short ? 'short' : 'failed'} read ${first}${count > 1 ? ' and all after' : ''}`;
            if (typeof got === 'string') {
              failures++;
            } else if (typeof expected === 'string') {
              wrong.push(`${how}: an answer instead of ${expected}`);
            } else if (got !== undefined && expected !== undefined) {
              // A task may say that its own address space cannot be told.
              for (const [address, row] of got)
                if (row.cr3Source === 'corrupt') got.set(address, expected.get(address)!);
              wrong.push(
                ...differences(survey, STRAIGHT, expected, got, true).map(
                  (line) => `${how}: ${line}`,
                ),
              );
            }
            const after = await outcome(operation());
            expect(after, `after ${how}`).toEqual(expected);
          }
        }
      }
      expect(wrong.slice(0, 4)).toEqual([]);
      // A walk shows the entry it could not follow, and mappings are those that could be read: no error there.
      if (name !== 'translate' && name !== 'mappings') expect(failures).toBeGreaterThan(0);
      expect(descriptors()).toBe(open);
    },
  );

  it('attaches rightly or not at all, and leaves nothing open', async () => {
    order();
    const before = await load(memory);
    expect(before.root).toBe(root);
    const reads = order();
    expect(reads).toBeGreaterThan(100);
    const open = descriptors();
    const points = new Set<number>();
    for (let point = 1; point <= reads; point = Math.ceil(point * 1.35)) points.add(point);
    let failures = 0;
    for (const first of points) {
      for (const count of [1, FOR_EVER]) {
        order(first, count, first % 2 === 0);
        try {
          const kernel = await load(memory);
          expect(kernel.root, `with read ${first} failed`).toBe(root);
        } catch (error) {
          if (codeOf(error) === undefined) throw error;
          failures++;
        }
      }
    }
    order();
    expect(failures).toBeGreaterThan(5);
    expect((await load(memory)).root).toBe(root);
    expect(descriptors()).toBe(open);
  });

  it('leaves no descriptor behind when it is closed after a fault', async () => {
    const open1 = descriptors();
    for (let i = 0; i < 5; i++) {
      const one = await open();
      order(10 + i, FOR_EVER);
      await expect(load(one)).rejects.toThrow();
      order();
      await one.close();
    }
    expect(descriptors()).toBe(open1);
  });
});
