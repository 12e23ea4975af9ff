import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, Guest } from '../../lib/index.js';
import { Kernel } from '../../lib/kernel/kernel.js';
import { REGISTERS } from '../../lib/libvmi/registers.js';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import type { PhysicalMemory } from '../../lib/memory/physical-memory.js';
import { FOR_EVER, failingLibrary } from '../fault/failing.mjs';
import { askWithFaults, type Question, questions } from '../fault/questions.mjs';
import { guestImage } from '../hostile/image.mjs';
import { codeOf } from '../hostile/operations.mjs';

/** Reads that are failed of a long question: all of the first, then some of the rest. */
const FIRST = 24;
const REST = 40;

const descriptors = () => readdirSync('/proc/self/fd').length;

function* sample(reads: number): Iterable<number> {
  for (let point = 1; point <= Math.min(reads, FIRST); point++) yield point;
  const step = Math.max(1, Math.ceil((reads - FIRST) / REST));
  for (let point = FIRST + step; point <= reads; point += step) yield point;
}

/**
 * `npm run test:faults` fails every read of every question; here it is a sample of the long ones.
 */
describe('a real guest whose memory cannot always be read', () => {
  let failing: ReturnType<typeof failingLibrary>;
  let ram: string;
  let asked: Question[];
  let memory: PhysicalMemory;
  let guest: Guest;
  let root: bigint;

  const order = (first?: number, count?: number, short?: boolean) =>
    failing.order(first, count, short);
  const open = () =>
    openLibvmi({ driver: 'kvm', name: ram, library: failing.library, direct: true });
  const load = (from: PhysicalMemory) => Kernel.load(from, { cache: false });

  beforeAll(async () => {
    const image = await guestImage();
    ram = image.ram;
    failing = failingLibrary(image, REGISTERS);
    memory = await open();
    guest = new Guest('libvmi:failing', memory, await load(memory));
    asked = questions(guest);
    const plain = await attach(`image:${ram}`, { cache: false });
    root = plain.kernel.root;
    await plain.close();
  });
  afterAll(async () => {
    await guest?.close();
    failing?.close();
  });

  it.each([
    'tasks',
    'tasks of threads',
    'taskColumns',
    'cpus',
    'crossView',
    'read',
    'read of a process',
    'readString',
    'translate',
  ])('%s ends with what is right, or with an error, and goes on to work', (name) => {
    const open = descriptors();
    const question = asked.find((one) => one.name === name)!;
    const { reads, errors, wrong } = askWithFaults(question, guest, order, sample);
    expect(reads).toBeGreaterThan(0);
    expect(wrong.slice(0, 4)).toEqual([]);
    // A walk shows the entry that it could not read: no error there.
    if (name !== 'translate') expect(errors).toBeGreaterThan(0);
    expect(descriptors()).toBe(open);
  });

  it('looks up every task rightly, whichever read fails', () => {
    const every = (reads: number) => Array.from({ length: reads }, (_, i) => i + 1);
    const wrong = asked
      .filter(({ name }) => /^(task|pidToCr3|findTask)\b/.test(name) && !/^tasks|^taskC/.test(name))
      .flatMap((question) => askWithFaults(question, guest, order, every).wrong);
    expect(wrong.slice(0, 4)).toEqual([]);
  });

  it('finds the tasks of every kind of CR3, and names those it cannot tell', () => {
    const wrong = asked
      .filter(({ name }) => name.startsWith('cr3ToTasks'))
      .flatMap((question) => askWithFaults(question, guest, order, sample).wrong);
    expect(wrong.slice(0, 4)).toEqual([]);
  });

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
