import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, VmiError } from '../../lib/index.js';
import { guestImage } from '../hostile/image.mjs';
import { wipe } from '../lab/wipe.mjs';

/** Guests that lie while their layout is inferred from what they say. */
const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-bent-layout-'));
const ram = join(folder, 'guest.ram');
/** Words that are bent in each round, and rounds. */
const WORDS = 40;
const ROUNDS = 12;

/** What is known of each task while nothing is bent, by the task's address. */
const right = new Map<bigint, string>();
/** Places of the words of all tasks, by the task's address. */
const places: (readonly [task: bigint, physical: number])[] = [];

beforeAll(async () => {
  execFileSync('cp', ['--sparse=always', (await guestImage('bookworm')).ram, ram]);
  await using guest = await attach(`image:${ram}`, { cache: false });
  const { memory, types } = guest.kernel;
  for (const task of guest.tasks({ threads: true })) {
    right.set(task.address, JSON.stringify(task.toJSON()));
    for (let at = 0n; at < BigInt(types.size('task_struct')) && at < 4096n; at += 8n)
      places.push([task.address, Number(memory.translate(task.address + at))]);
  }
  wipe(ram, [memory.translate(guest.symbol('__start_BTF'))]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a guest without types that lies', () => {
  it('is refused with a code, or gives the right answers for all tasks that do not', async () => {
    let seed = 11;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    const addresses = [...right.keys()];
    const values = () =>
      random(2) === 0
        ? (BigInt(random(2 ** 31)) << 32n) | BigInt(random(2 ** 31) * 2)
        : [0n, 1n, 2n, ~0n & 0xffff_ffff_ffff_ffffn, addresses[random(addresses.length)]!][
            random(5)
          ]!;
    let answered = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const bent = Array.from({ length: WORDS }, () => places[random(places.length)]!);
      const undo = overwrite(bent.map(([, place]) => [place, values()] as const));
      const liars = new Set(bent.map(([task]) => task));
      try {
        await using guest = await attach(`image:${ram}`, { cache: false });
        for (const task of guest.tasks({ threads: true })) {
          if (liars.has(task.address) || !right.has(task.address)) continue;
          expect(JSON.stringify(task.toJSON()) === right.get(task.address), `round ${round}`).toBe(
            true,
          );
        }
        answered++;
      } catch (error) {
        if (!(error instanceof VmiError)) throw error;
      } finally {
        undo();
      }
    }
    expect(answered).toBeGreaterThan(0);
  });
});

/** Writes words, and gives what writes the former ones back. */
function overwrite(words: readonly (readonly [place: number, value: bigint])[]): () => void {
  const file = openSync(ram, 'r+');
  const before = words.map(([place, value]) => {
    const bytes = Buffer.alloc(8);
    readSync(file, bytes, 0, 8, place);
    const other = Buffer.alloc(8);
    other.writeBigUInt64LE(value);
    writeSync(file, other, 0, 8, place);
    return [place, bytes] as const;
  });
  return () => {
    for (const [place, bytes] of before.reverse()) writeSync(file, bytes, 0, 8, place);
    closeSync(file);
  };
}
