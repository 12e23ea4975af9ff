import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VmiError } from '../../../../lib/errors.js';
import type { ByteReader } from '../../../../lib/kernel/bytes.js';
import { Kallsyms } from '../../../../lib/kernel/symbols/kallsyms.js';
import { TOKEN_PATTERN, tokenTableAround } from '../../../../lib/kernel/symbols/kallsyms-tokens.js';
import {
  type BuiltKallsyms,
  type BuiltSymbol,
  buildKallsyms,
  LAYOUTS,
  type Layout,
  manySymbols,
} from '../support/build-kallsyms.js';

const TEXT = 0xffff_ffff_8100_0000n;
const TABLES = TEXT + 0x40_0000n;
const IMAGE = { start: TEXT, end: TEXT + 0x60_0000n };

/** The tables in an image of zeroes. */
function sourceOf(bytes: Buffer, at = TABLES): ByteReader {
  const image = Buffer.alloc(Number(IMAGE.end - IMAGE.start));
  bytes.copy(image, Number(at - IMAGE.start));
  return {
    read: (address, length) =>
      Buffer.from(
        image.subarray(Number(address - IMAGE.start), Number(address - IMAGE.start) + length),
      ),
  };
}

function open(
  symbols: readonly BuiltSymbol[],
  layout: Layout,
): { table: Kallsyms; built: BuiltKallsyms; source: ByteReader } {
  const built = buildKallsyms(symbols, layout, TABLES);
  const source = sourceOf(built.bytes);
  return { built, source, table: Kallsyms.find(source, TABLES + BigInt(built.tokenTable), IMAGE) };
}

const many = manySymbols(TEXT);
const extra: BuiltSymbol[] = [
  { name: 'init_task', address: TEXT + 0x30_0000n, type: 'D' },
  { name: 'twice', address: TEXT + 0x30_0100n, type: 'd' },
  { name: 'twice', address: TEXT + 0x30_0040n, type: 'd' },
  { name: 'alias_b', address: TEXT + 0x30_0200n, type: 'B' },
  { name: 'alias_a', address: TEXT + 0x30_0200n, type: 'B' },
  { name: 'x'.repeat(300), address: TEXT + 0x30_0300n, type: 't' },
  { name: '_end', address: TEXT + 0x50_0000n, type: 'B' },
];

describe.each(LAYOUTS)('tables laid out as %s', (layout) => {
  const perCpu: BuiltSymbol[] =
    layout === 'place' ? [] : [{ name: 'current_task', address: 0x1_fac0n, type: 'D' }];
  const symbols = [...many, ...extra, ...perCpu];
  const { table, built, source } = open(symbols, layout);

  it('gives every symbol, by ascending address', () => {
    const expected = [...symbols].sort((a, b) =>
      a.address < b.address ? -1 : a.address > b.address ? 1 : 0,
    );
    expect([...table.entries()].map(({ address, type }) => ({ address, type }))).toEqual(
      expected.map(({ address, type }) => ({ address, type })),
    );
    expect([...table.entries()].map((entry) => entry.name).sort()).toEqual(
      symbols.map((entry) => entry.name).sort(),
    );
    expect(table.count).toBe(symbols.length);
  });

  it('finds the tables where they were written', () => {
    expect(table.tables).toMatchObject({
      count: symbols.length,
      names: TABLES + BigInt(built.names),
      tokenIndex: TABLES + BigInt(built.tokenIndex),
      offsets: TABLES + BigInt(built.offsets),
      form: layout === 'place' ? 'place' : 'percpu',
      seqs: built.seqs === undefined ? undefined : TABLES + BigInt(built.seqs),
    });
  });

  it('finds by name: the lowest address of several, names of two-byte length', () => {
    expect(table.find('init_task')).toBe(TEXT + 0x30_0000n);
    expect(table.find('twice')).toBe(TEXT + 0x30_0040n);
    expect(table.find('x'.repeat(300))).toBe(TEXT + 0x30_0300n);
    expect(table.find('function_number_2499')).toBe(TEXT + 2499n * 16n);
    if (layout !== 'place') expect(table.find('current_task')).toBe(0x1_fac0n);
    for (const absent of ['', 'init_tas', 'init_task2', 'zzzz', 'tinit_task', '\0', 'é']) {
      expect(table.find(absent)).toBeUndefined();
    }
  });

  it('finds by address: the nearest at or below, the first of aliases, nothing outside', () => {
    expect(table.at(TEXT + 0x30_0008n)).toEqual({
      name: 'init_task',
      address: TEXT + 0x30_0000n,
      offset: 8,
    });
    expect(table.at(TEXT + 0x30_0200n)?.name).toBe('alias_b');
    expect(table.at(TEXT + 0x50_0000n)).toEqual({
      name: '_end',
      address: TEXT + 0x50_0000n,
      offset: 0,
    });
    expect(table.at(TEXT + 0x50_0001n)).toBeUndefined();
    expect(table.at(TEXT - 1n)).toBeUndefined();
    expect(table.at(0x7fff_0000_0000n)).toBeUndefined();
  });

  it('completes names, sorted and each once', () => {
    expect(table.complete('function_number_249', 3)).toEqual([
      'function_number_249',
      'function_number_2490',
      'function_number_2491',
    ]);
    expect(table.complete('twice')).toEqual(['twice']);
    expect(table.complete('nothing_like_it')).toEqual([]);
  });

  it('opens again at known places', () => {
    const again = Kallsyms.open(source, table.tables, IMAGE);
    expect(again.find('init_task')).toBe(TEXT + 0x30_0000n);
    expect(again.count).toBe(table.count);
  });

  it('never does worse than an error with a code when bytes are changed', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.integer({ min: 0, max: built.bytes.length - 1 }),
            fc.integer({ min: 0, max: 255 }),
          ),
          { minLength: 1, maxLength: 8 },
        ),
        (changes) => {
          const bytes = Buffer.from(built.bytes);
          for (const [at, value] of changes) bytes[at] = value;
          try {
            const found = Kallsyms.find(sourceOf(bytes), TABLES + BigInt(built.tokenTable), IMAGE);
            found.find('init_task');
            found.at(TEXT + 0x1000n);
            found.complete('func', 5);
            for (const _ of found.entries());
          } catch (error) {
            expect(error).toBeInstanceOf(VmiError);
          }
        },
      ),
      { numRuns: 20 },
    );
  });
});

it('decodes any names', () => {
  const name = fc.string({
    unit: fc.constantFrom(...'abcdefgh_ijkl0123456789.$'),
    minLength: 1,
    maxLength: 60,
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(name, { minLength: 1, maxLength: 30 }),
      fc.constantFrom(...LAYOUTS),
      (names, layout) => {
        const added = names.map((text, i) => ({
          name: `${text}!`,
          address: TEXT + 0x20_0000n + BigInt(i),
          type: 'r',
        }));
        const { table } = open([...many, ...added], layout);
        for (const { name, address } of added) expect(table.find(name)).toBe(address);
      },
    ),
    { numRuns: 10 },
  );
});

describe('errors', () => {
  it('names symbols like one that is absent', () => {
    const { table } = open([...many, ...extra], 'behind');
    expect(() => table.address('init_tsk')).toThrow(
      expect.objectContaining({
        code: 'VMI_SYMBOL',
        message: "no symbol 'init_tsk' in kallsyms; did you mean init_task?",
      }),
    );
    expect(() => table.address('qqqqqqqqqqqqqq')).toThrow("no symbol 'qqqqqqqqqqqqqq' in kallsyms");
  });

  const broken = (
    change: (bytes: Buffer, built: BuiltKallsyms) => void,
    layout: Layout = 'behind',
  ) => {
    const built = buildKallsyms([...many, ...extra], layout, TABLES);
    change(built.bytes, built);
    return () => Kallsyms.find(sourceOf(built.bytes), TABLES + BigInt(built.tokenTable), IMAGE);
  };

  it('says that the token index does not agree', () => {
    expect(broken((bytes, { tokenIndex }) => bytes.writeUInt16LE(7, tokenIndex + 100))).toThrow(
      /^kallsyms: token table at 0xffffffff814\w+: its token index does not agree$/,
    );
  });

  it('says that there are no markers', () => {
    expect(broken((bytes, { markers }) => bytes.fill(0xff, markers, markers + 40))).toThrow(
      /: no table of markers near it$/,
    );
  });

  it('says that names and markers differ', () => {
    for (const change of [
      (bytes: Buffer, { markers }: BuiltKallsyms) =>
        bytes.writeUInt32LE(bytes.readUInt32LE(markers + 4) + 1, markers + 4),
      (bytes: Buffer, { countAt }: BuiltKallsyms) => bytes.writeUInt32LE(5, countAt),
      (bytes: Buffer, { countAt }: BuiltKallsyms) => bytes.writeUInt32LE(0xffff_ffff, countAt),
    ]) {
      expect(broken(change)).toThrow(
        /: markers at 0xffffffff814\w+, but no names that agree with them$/,
      );
    }
  });

  it('says that no addresses fit', () => {
    expect(broken((bytes, { offsets }) => bytes.fill(0x55, offsets, offsets + 4000))).toThrow(
      /: 2507 names, but no table of their addresses that lies in the kernel's image$/,
    );
  });

  it('refuses known places that are wrong', () => {
    const { table, source } = open([...many, ...extra], 'behind');
    const { tables } = table;
    const wrong = [
      { ...tables, count: 10 },
      { ...tables, count: 1e9 },
      { ...tables, tokenIndex: tables.tokenIndex + 2n },
      { ...tables, tokenIndex: tables.tokenTable + 0x10_0000n },
      { ...tables, offsets: tables.offsets + 4n },
      { ...tables, form: 'place' as const },
      { ...tables, base: tables.base + 0x1000_0000n },
      { ...tables, names: IMAGE.end },
    ];
    for (const one of wrong)
      expect(() => Kallsyms.open(source, one, IMAGE)).toThrow(
        expect.objectContaining({ code: 'VMI_CORRUPT' }),
      );
  });

  it('looks names up the slow way when the order of names is wrong', () => {
    const built = buildKallsyms([...many, ...extra], 'behind', TABLES);
    const seqs = built.seqs!;
    for (let i = 0; i < 2507; i++) built.bytes.writeUIntBE(2506 - i, seqs + i * 3, 3);
    const table = Kallsyms.find(sourceOf(built.bytes), TABLES + BigInt(built.tokenTable), IMAGE);
    expect(table.find('twice')).toBe(TEXT + 0x30_0040n);
    expect(table.complete('alias')).toEqual(['alias_a', 'alias_b']);
  });
});

it('tells a token table from other runs of digits', () => {
  const { built } = open(many, 'behind');
  const hit = built.bytes.indexOf(TOKEN_PATTERN);
  expect(tokenTableAround(built.bytes, hit)).toEqual({
    table: built.tokenTable,
    index: built.tokenIndex,
  });
  const other = Buffer.concat([Buffer.alloc(100, 0x61), TOKEN_PATTERN, Buffer.alloc(20_000)]);
  expect(tokenTableAround(other, 100)).toBeUndefined();
  expect(tokenTableAround(TOKEN_PATTERN, 0)).toBeUndefined();
});
