import { expect, it } from 'vitest';
import type { Guest } from '../../../lib/index.js';
import { completeMember } from '../../../lib/repl/complete-member.js';
import { BtfBuilder } from '../kernel/support/build-btf.js';
import { BASE, MadeMemory, madeObjects } from '../objects/support/made-kernel.js';

const builder = new BtfBuilder();
const int = builder.int('int', 4, 1);
const inner = builder.struct('inner', 8, [
  { name: 'low', type: int, bits: 0 },
  { name: 'high', type: int, bits: 32 },
]);
builder.struct('outer', 24, [
  { name: 'pid', type: int, bits: 0 },
  { name: 'constructor', type: int, bits: 32 },
  { name: 'pgd', type: builder.pointer(inner), bits: 64 },
  { name: 'pairs', type: builder.array(inner, 1), bits: 128 },
]);
const memory = new MadeMemory(64);
memory.put(8, BASE + 16n);
const outer = madeObjects(builder, memory).object('outer', BASE);
const guest = {
  task: (pid: number) => ({ pid, object: outer }),
  variable: (name: string) => ({ named: name, inside: outer }),
} as unknown as Guest;
const names = (line: string) => completeMember(line, guest, { outer, count: 4 })?.[0];

it('completes members of structures, and nothing that JavaScript puts there', () => {
  expect(names('outer.')).toEqual(['pid', 'pgd', 'pairs']);
  expect(names('1 + outer.p')).toEqual(['pid', 'pgd', 'pairs']);
  expect(names('outer.pgd.h')).toEqual(['high']);
  expect(names('outer.pgd?.h')).toEqual(['high']);
  expect(names('outer.pairs[0].l')).toEqual(['low']);
  expect(names('task(7).object.pg')).toEqual(['pgd']);
  expect(names("variable('it').inside.pi")).toEqual(['pid']);
  expect(names('outer.$a')).toEqual(['$address', '$add(']);
});

it('leaves to Node what is no structure', () => {
  for (const line of ['outer', 'count.', 'nobody.x', 'outer.pid.', 'outer.pairs.', 'a().b.', '']) {
    expect(names(line), line).toBeUndefined();
  }
});
