import { describe, expect, it } from 'vitest';
import { findTarget, formatTarget, frameText, hex } from '../../lib/index.js';
import { cr3Base } from '../../lib/tasks/cr3.js';
import { BtfBuilder } from './kernel/support/build-btf.js';
import { BASE, MadeMemory, madeObjects } from './objects/support/made-kernel.js';

// biome-ignore lint/suspicious/noExplicitAny: as a program without types calls it
const untyped = (value: unknown) => value as any;

function thing() {
  const b = new BtfBuilder();
  b.struct('thing', 8, [{ name: 'a', type: b.int('int', 4, 1), bits: 0 }]);
  return madeObjects(b, new MadeMemory(64)).object('struct thing', BASE);
}

/** What is called with something else than it takes says so, in the one form of such errors. */
describe('misuse is told', () => {
  it.each<[string, () => unknown]>([
    ['formatTarget(undefined)', () => formatTarget(untyped(undefined))],
    ['formatTarget({ kind })', () => formatTarget(untyped({ kind: 'qemu' }))],
    ["cr3Base('x')", () => cr3Base(untyped('x'), false)],
    ['cr3Base(-1)', () => cr3Base(-1, false)],
    ['findTarget(5)', () => findTarget(untyped(5))],
    ['frameText()', () => frameText(untyped(undefined))],
    ["hex('x')", () => hex(untyped('x'))],
    ['hex(0.5)', () => hex(0.5)],
    ["$add('x')", () => thing().$add('x')],
    ["$add('5')", () => thing().$add('5')],
    ['$format({ column })', () => thing().$format({ column: 5 })],
    ['$format({ base: 8 })', () => thing().$format({ base: 8 })],
    ["$format({ types: 'no' })", () => thing().$format({ types: 'no' })],
    ['$format(5)', () => thing().$format(5)],
  ])('%s', (_, call) => {
    let error: unknown;
    try {
      call();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(Error);
    expect(['TypeError', 'RangeError']).toContain((error as Error).name);
    expect((error as Error).message).toMatch(/^Expected .* but received /);
  });

  it('has negative numbers in hex as people write them', () => {
    expect([hex(-1n), hex(-255), hex(255)]).toEqual(['-0x1', '-0xff', '0xff']);
  });
});
