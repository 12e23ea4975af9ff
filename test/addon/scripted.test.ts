import { readSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Engine, NATIVE } from '../../lib/memory/engine.js';
import { makePlan } from '../../lib/memory/native-plan.js';
import { SCRIPTED } from '../../lib/memory/scripted/engine.js';
import { scriptedLoader } from '../../lib/memory/scripted/loader.js';
import { ScriptedMemory } from '../../lib/memory/scripted/scripted-memory.js';
import type { AddressSpace, ListWalker, Memory, NativeRows, Plan } from '../../types/addon.js';
import { bytesOf, DIRECT_MAP, IMAGE, Ram, TOP } from './support/ram.js';

const SIZE = 0x200000;
const LINK = 0x40;
const NODES = 0x50000n;
const HEADS = 0x40000n;
/** XArray's: native/core/lookup/radix_tree.h. */
const TREE = Int32Array.of(2, 3, 0x1000, 0, 40, 6, 36);

/** The same bytes by a function of JavaScript. */
function scripted(ram: Ram): ScriptedMemory {
  return new ScriptedMemory([{ start: 0n, length: BigInt(ram.size) }], (address, into) =>
    readSync(ram.fd, into, 0, into.length, Number(address)),
  );
}

/** What a call gives, or what it says is wrong. */
function outcome(call: () => unknown): unknown {
  try {
    return call();
  } catch (error) {
    const { code, address, level, transferred, requested, space } = error as Record<
      string,
      unknown
    >;
    if (code === 'VMI_FAULT') return { code, address, level, transferred, requested, space };
    // How far a walk came through a list that is broken is each one's own business.
    return { code };
  }
}

type Walk = (plan: Plan, link: number) => ListWalker;

/** Both of them over one RAM. */
function compare(
  ram: Ram,
  ask: (space: AddressSpace, memory: Memory, walker: Walk) => unknown,
): void {
  const memory = ram.open();
  const own = scripted(ram);
  try {
    const askBy = (engine: Engine, of: Memory) => {
      const space = engine.space(of, ram.root, ram.levels);
      return outcome(() => ask(space, of, (plan, link) => engine.walker(space, plan, link)));
    };
    expect(askBy(SCRIPTED, own)).toEqual(askBy(NATIVE, memory));
  } finally {
    memory.close();
    own.close();
  }
}

const rowBytes = (rows: NativeRows, into?: Uint8Array) => {
  const { buffer, ...rest } = rows;
  return { ...rest, bytes: Buffer.from(buffer ?? into!.buffer) };
};

const anyAddress = fc.oneof(
  fc.bigInt(0n, TOP),
  fc.bigInt(0n, BigInt(SIZE) + 0x2000n),
  fc.bigInt(0n, BigInt(SIZE) + 0x2000n).map((offset) => DIRECT_MAP + offset),
  fc.bigInt(0n, 0x5000n).map((offset) => IMAGE + offset),
);

function makeRam(levels: 4 | 5 = 4): Ram {
  const ram = new Ram(SIZE, levels);
  ram.mapDirect();
  ram.map(IMAGE, 0x10000n);
  ram.map(IMAGE + 0x1000n, 0x12000n);
  ram.map(IMAGE + 0x3000n, 0x700000n);
  for (let at = 0x10000; at < 0x30000; at += 8) ram.put64(at, DIRECT_MAP + BigInt(at * 7));
  return ram;
}

describe('memory that JavaScript reads is what the addon makes of the same bytes', () => {
  it.each([4, 5] as const)('reads and walks, %i levels', (levels) => {
    using ram = makeRam(levels);
    fc.assert(
      fc.property(anyAddress, fc.integer({ min: 0, max: 9000 }), (address, length) => {
        compare(ram, (space, memory) => {
          const bytes = Buffer.alloc(length);
          return [
            outcome(() => space.read(address, bytes)),
            bytes,
            outcome(() => memory.read(address, bytes)),
            bytes,
            outcome(() => space.translate(address)),
            outcome(() => space.walk(address)),
            outcome(() => space.readU64(address)),
            outcome(() => space.readU32(address)),
            outcome(() => memory.readU64(address)),
          ];
        });
      }),
      { numRuns: 150 },
    );
  });

  it('lists mappings, cut to what was asked for', () => {
    using ram = makeRam();
    for (const [start, end, max] of [
      [0n, TOP, 100],
      [DIRECT_MAP + 0x1234n, IMAGE + 0x1800n, 100],
      [IMAGE, IMAGE + 0x4000n, 1],
      [0x1000n, 0x2000n, 10],
    ] as const)
      compare(ram, (space) => space.mappings(start, end, max));
  });

  it('uses windows where they lead to RAM', () => {
    using ram = makeRam();
    compare(ram, (space) => {
      space.setWindows(BigUint64Array.of(0xffff900000000000n, 0x10000000n, 0x10000n));
      const bytes = Buffer.alloc(64);
      return [
        space.read(0xffff900000000800n, bytes),
        bytes,
        outcome(() => space.translate(0xffff900000800000n)),
      ];
    });
  });

  it('gathers, through pointers that are NULL, wild or gone', () => {
    using ram = makeRam();
    const plan = makePlan(Int32Array.of(-1, 0, 8, 0, 16, 8, 1, -8, 8, -1, 24, 4, 0, 4000, 300));
    fc.assert(
      fc.property(fc.array(anyAddress, { maxLength: 5 }), (bases) => {
        ram.put64(0x20000, 0n);
        ram.put64(0x20040, DIRECT_MAP + 0x20000n);
        const all = BigUint64Array.from([...bases, DIRECT_MAP + 0x20000n, DIRECT_MAP + 0x20040n]);
        compare(ram, (space) => {
          const into = new Uint8Array(2048 * all.length);
          space.gather(plan, all, into);
          return Buffer.from(into);
        });
      }),
      { numRuns: 100 },
    );
  });

  it('walks lists, whole or bent, as far as the other does', () => {
    const node = (i: number) => DIRECT_MAP + NODES + BigInt(i * 0x100 + LINK);
    const head = (i: number) => DIRECT_MAP + HEADS + BigInt(i * 16);
    const plan = makePlan(Int32Array.of(-1, 0, 8, -1, LINK, 8));
    const bend = fc.record({
      node: fc.nat(9),
      side: fc.constantFrom(0n, 8n),
      value: fc.oneof(
        fc.nat(9).map(node),
        fc.constantFrom(head(0), head(1), 0n, TOP - 7n, IMAGE + 0x3000n, DIRECT_MAP + 3n),
      ),
    });
    fc.assert(
      fc.property(fc.array(bend, { maxLength: 2 }), fc.nat(12), (bends, max) => {
        using ram = makeRam();
        const link = (from: bigint, nodes: bigint[]) => {
          const ring = [from, ...nodes];
          ring.forEach((address, i) => {
            const next = ring[(i + 1) % ring.length]!;
            const previous = ring.at(i - 1)!;
            ram.put(address - DIRECT_MAP, bytesOf(next, previous));
          });
        };
        link(head(0), [0, 3, 1, 2, 4, 5].map(node));
        link(head(1), [6, 7, 8, 9].map(node));
        for (const { node: at, side, value } of bends)
          ram.put64(node(at) - DIRECT_MAP + side, value);
        compare(ram, (_space, _memory, walker) => {
          const rows = walker(plan, LINK).walk(BigUint64Array.of(head(0), head(1)), max);
          return rowBytes({ ...rows, retries: 0 });
        });
      }),
      { numRuns: 120 },
    );
  }, 120_000);

  it('fills the buffer it is given, where rows fit', () => {
    using ram = makeRam();
    const head = DIRECT_MAP + HEADS;
    ram.put(HEADS, bytesOf(DIRECT_MAP + NODES, DIRECT_MAP + NODES));
    ram.put(NODES, bytesOf(head, head));
    const plan = makePlan(Int32Array.of(-1, 0, 8, -1, 8, 1, -1, 9, 3));
    for (const length of [8, 31, 32, 47, 48, 56, 64, 200])
      compare(ram, (_space, _memory, walker) => {
        const into = new Uint8Array(length);
        const rows = walker(plan, 0).walk(BigUint64Array.of(head), 5, into);
        const bytes = rows.buffer === undefined ? into : new Uint8Array(rows.buffer);
        return [rows.count, rows.buffer === undefined, rows.capacity, bytes[8], bytes.at(16)];
      });
  });

  it('looks up in a radix tree', () => {
    using ram = makeRam();
    const plan = makePlan(Int32Array.of(-1, 0, 8));
    const top = 0x60000n;
    const leaf = 0x61000n;
    ram.put64(0x5f000n, DIRECT_MAP + top + 2n);
    ram.put(top, Buffer.of(6));
    ram.put64(top + 40n, DIRECT_MAP + leaf + 2n);
    ram.put64(top + 48n, DIRECT_MAP + 0x62000n);
    ram.put64(top + 56n, 5n);
    ram.put(leaf, Buffer.of(0));
    ram.put64(leaf + 40n + 8n, DIRECT_MAP + 0x10000n);
    ram.put64(leaf + 40n + 16n, 0x1003n);
    const at = DIRECT_MAP + 0x5f000n;
    for (const index of [0, 1, 2, 3, 63, 64, 128, 192, 4096, 2 ** 31 - 1])
      compare(ram, (space) => {
        const { row, find } = space.finder(TREE, at, plan);
        return [
          outcome(() => space.lookUp(TREE, at, index)),
          outcome(() => find(index)),
          Buffer.from(row),
        ];
      });
    ram.put(top, Buffer.of(7));
    compare(ram, (space) => space.lookUp(TREE, at, 1));
  });

  it('scans', async () => {
    using ram = makeRam();
    ram.put(0x1ffffc, Buffer.from('need'));
    ram.put(0xffffe, Buffer.from('need'));
    const memory = ram.open();
    const own = scripted(ram);
    for (const request of [
      { stride: 1, offsets: [0], max: 100 },
      { stride: 4096, offsets: [0xffc], max: 100 },
      { stride: 1, offsets: [0], max: 1 },
      { stride: 1, offsets: [0], max: 9, start: 0xfffffn, end: 0x200000n },
    ]) {
      const full = { pattern: Buffer.from('need'), ...request };
      expect(await own.scan(full)).toEqual(await memory.scan(full));
    }
    memory.close();
    own.close();
    expect(() => own.read(0n, Buffer.alloc(1))).toThrow('closed');
  });

  it('scans over what cannot be read, and finds nothing there', async () => {
    const memory = new ScriptedMemory([{ start: 0n, length: 0x4000n }], (address, into) => {
      // The second page is gone: zeroes that a buffer holds anyway are no bytes of the guest.
      const end =
        address < 0x1000n ? 0x1000n - address : address < 0x2000n ? 0n : 0x4000n - address;
      const length = Number(end < BigInt(into.length) ? end : BigInt(into.length));
      into.fill(7, 0, length);
      return length;
    });
    const scan = (pattern: Buffer, stride: number) =>
      memory.scan({ pattern, stride, offsets: [0], max: 10 });
    expect([...(await scan(Buffer.alloc(16), 1))]).toEqual([]);
    expect([...(await scan(Buffer.alloc(16, 7), 4096))]).toEqual([0n, 0x2000n, 0x3000n]);
    expect(memory.read(0xff8n, Buffer.alloc(16))).toBe(8);
  });

  it('loads words by handle, and asks for a page once an operation', () => {
    using ram = makeRam();
    let asked = 0;
    const memory = new ScriptedMemory([{ start: 0n, length: 0x100000n }], (address, into) => {
      asked++;
      return readSync(ram.fd, into, 0, into.length, Number(address));
    });
    const { word, handle, load } = scriptedLoader;
    for (const address of [0x10000n, 0x10008n, 0x10ff8n]) {
      word[0] = address;
      handle[0] = memory.handle;
      load();
      expect(word[0]).toBe(DIRECT_MAP + address * 7n);
    }
    expect(asked).toBe(1);
    memory.begin();
    memory.readU64(0x10000n);
    expect(asked).toBe(2);
  });
});
