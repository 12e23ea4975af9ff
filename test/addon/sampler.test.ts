import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import type { Memory, NativeSamplerOptions, Sampler } from '../../types/addon.js';
import { DIRECT_MAP, Ram, TOP, withEachSource } from './support/ram.js';

/** One CPU's words, two tasks, an mm with its page directory; all in the direct map. */
const COUNT = 0x3000;
const CURR = 0x3008;
const CURRENT = 0x3040;
const LOADED = 0x3080;
const LOCK = 0x30c4;
const TASKS = [0x4000, 0x4100] as const;
const MM = 0x5000;
const PGD = 0x6000;

function fill(ram: Ram): void {
  for (const [number, task] of TASKS.entries()) {
    ram.put64(task, 1_000n + BigInt(number));
    ram.put64(task + 8, BigInt(40 + number) | (BigInt(30 + number) << 32n));
    ram.put64(task + 16, DIRECT_MAP + BigInt(MM));
    ram.put64(task + 24, BigInt(7 + number));
    ram.put64(task + 32, 0x40n);
    ram.put(task + 40, `task-${number}`);
  }
  ram.put64(MM + 16, DIRECT_MAP + BigInt(PGD));
  ram.put64(LOADED, DIRECT_MAP + BigInt(MM));
  run(ram, 0, 1n);
}

/** Has the CPU run a task, as its switch number `count`. */
function run(ram: Ram, number: 0 | 1, count: bigint): void {
  const task = DIRECT_MAP + BigInt(TASKS[number]);
  // In the kernel's own order.
  ram.put(LOCK, '\x01');
  ram.put64(COUNT, count);
  ram.put64(CURR, task);
  ram.put64(CURRENT, task);
  ram.put(LOCK, '\0');
}

function options(ram: Ram, more: Partial<NativeSamplerOptions> = {}): NativeSamplerOptions {
  return {
    cpus: BigUint64Array.from([COUNT, CURR, CURRENT, LOADED, LOCK], BigInt),
    windows: BigUint64Array.of(DIRECT_MAP, BigInt(ram.size), 0n),
    task: Int32Array.of(0, 8, 12, 32, 16, 24, 40, 56),
    pgd: 16,
    capacity: 16,
    interval: 100_000,
    share: 0,
    ...more,
  };
}

/** Takes records until there is one. */
async function record(sampler: Sampler): Promise<BigUint64Array> {
  const words = new BigUint64Array(16);
  while (sampler.take(words) === 0) await sleep(1);
  return words;
}

function start(memory: Memory, given: NativeSamplerOptions): Sampler {
  return new (addon().Sampler)(memory, given);
}

describe('Sampler', () => {
  it('gives what a CPU runs, and what it runs next', async () => {
    using ram = new Ram(0x8000);
    fill(ram);
    const samplers: [Memory, Sampler, string][] = [];
    const { memory, holder } = ram.openAsProcess();
    samplers.push([memory, start(memory, options(ram)), 'process']);
    samplers.push([holder, start(holder, options(ram)), 'file']);
    for (const [, sampler] of samplers) {
      const first = await record(sampler);
      expect([first[2], first[5], first[12]]).toEqual([1n, 1n, 40n | (30n << 32n)]);
    }
    run(ram, 1, 5n);
    for (const [of, sampler] of samplers) {
      const [time, before, ...rest] = await record(sampler);
      expect(time! - before!).toBeGreaterThanOrEqual(0n);
      expect(rest.slice(0, 12)).toEqual([
        ...[5n, 3n, 0n, 0n],
        DIRECT_MAP + BigInt(TASKS[1]),
        ...[1_001n, 8n],
        ...[DIRECT_MAP + BigInt(MM), DIRECT_MAP + BigInt(MM), BigInt(PGD)],
        ...[41n | (31n << 32n), 0x40n],
      ]);
      expect(Buffer.from(BigUint64Array.from(rest.slice(12)).buffer).toString('latin1')).toBe(
        'task-1'.padEnd(16, '\0'),
      );
      expect(sampler.statistics[1]).toBe(2n);
      sampler.stop();
      sampler.stop();
      expect(sampler.take(new BigUint64Array(16))).toBe(0);
      of.close();
    }
  });

  it('drops what finds the ring full, and counts it as missed', async () => {
    using ram = new Ram(0x8000);
    fill(ram);
    const memory = ram.open();
    const sampler = start(memory, options(ram, { capacity: 1, interval: 20_000 }));
    const looksOn = async () => {
      const looks = sampler.statistics[0]!;
      while (sampler.statistics[0]! < looks + 3n) await sleep(1);
    };
    await looksOn();
    for (const count of [2n, 3n, 4n]) {
      run(ram, count % 2n === 0n ? 1 : 0, count);
      await looksOn();
    }
    expect(sampler.statistics[2]).toBe(3n);
    expect((await record(sampler))[2]).toBe(1n);
    run(ram, 0, 5n);
    const [, , count, missed] = await record(sampler);
    expect([count, missed]).toEqual([5n, 3n]);
    memory.close();
  });

  it('ends when its memory is closed', () => {
    using ram = new Ram(0x8000);
    fill(ram);
    withEachSource(ram, (memory) => {
      const sampler = start(memory, options(ram, { interval: 0 }));
      while (sampler.statistics[0] === 0n);
      memory.close();
      const words = new BigUint64Array(64);
      expect(() => {
        while (sampler.take(words) > 0);
        sampler.take(words);
      }).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
      expect(() => start(memory, options(ram))).toThrow(
        expect.objectContaining({ code: 'VMI_CLOSED' }),
      );
    });
  });

  it('refuses what cannot be meant', () => {
    using ram = new Ram(0x8000);
    const memory = ram.open();
    const { Sampler } = addon();
    const bad: [Partial<Record<keyof NativeSamplerOptions, unknown>>, RegExp][] = [
      [{ cpus: new BigUint64Array(4) }, /five elements/],
      [{ cpus: new BigUint64Array(0) }, /1 to 1024 CPUs/],
      [{ cpus: BigUint64Array.of(0n, TOP, TOP, 0n, TOP) }, /current task/],
      [{ cpus: BigUint64Array.of(0n, 4n, 0n, 0n, 0n) }, /multiples of 8/],
      [{ cpus: BigUint64Array.of(0n, 0n, 0n, 0n, 2n) }, /multiples of 4/],
      [{ cpus: [] }, /cpus/],
      [{ windows: new BigUint64Array(2) }, /three elements/],
      [{ windows: new BigUint64Array(0) }, /windows/],
      [{ task: new Int32Array(6) }, /eight offsets/],
      [{ task: Int32Array.of(0, -1, 0, 0, 0, 0, 0, -1) }, /multiples of 4/],
      [{ task: Int32Array.of(0, 2, 0, 0, 0, 0, 0, -1) }, /multiples of 4/],
      [{ pgd: -1 }, /pgd/],
      [{ capacity: 0 }, /capacity/],
      [{ capacity: 2 ** 21 }, /capacity/],
      [{ interval: -1 }, /interval/],
      [{ share: 2 }, /share/],
      [{ share: Number.NaN }, /share/],
      [{ share: '1' }, /share/],
    ];
    for (const [change, message] of bad) {
      const given = { ...options(ram), ...change } as NativeSamplerOptions;
      expect(() => new Sampler(memory, given), JSON.stringify(Object.keys(change))).toThrow(
        message,
      );
    }
    expect(() => new Sampler({} as never, options(ram))).toThrow(/memory to be a Memory/);
    expect(() => new Sampler(memory, undefined as never)).toThrow(TypeError);
    expect(() => (Sampler as unknown as () => unknown)()).toThrow(TypeError);
    const sampler = new Sampler(memory, options(ram));
    expect(() => sampler.take(undefined as never)).toThrow(TypeError);
    const methods = Sampler.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
    for (const method of ['take', 'stop'])
      expect(() => methods[method]!.call(memory, new BigUint64Array(16))).toThrow(TypeError);
    memory.close();
  });
});
