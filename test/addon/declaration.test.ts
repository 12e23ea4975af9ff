import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { Ram } from './support/ram.js';

/** Names of `types/addon.d.ts` that exist at run time, and the members of each class. */
function declared(): { names: string[]; members: Map<string, string[]> } {
  const text = fs
    .readFileSync(new URL('../../types/addon.d.ts', import.meta.url), 'utf8')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '');
  const names = [...text.matchAll(/^export (?:declare )?(?:class|function|const) (\w+)/gm)].map(
    (match) => match[1]!,
  );
  const members = new Map<string, string[]>();
  for (const [, name, body] of text.matchAll(
    /^export (?:declare )?class (\w+) \{\n([\s\S]*?)^\}/gm,
  )) {
    const found = [...body!.matchAll(/^ {2}(?:private |readonly )*(\w+)[(:<]/gm)].map(
      (match) => match[1]!,
    );
    members.set(
      name!,
      found.filter((member) => member !== 'constructor'),
    );
  }
  return { names, members };
}

const { names, members } = declared();
const binary = addon() as unknown as Record<string, { prototype: object }>;

describe('types/addon.d.ts', () => {
  it('is read as intended', () => {
    expect(names).toEqual(expect.arrayContaining(['Memory', 'Plan', 'AddressSpace', 'openMemory']));
    expect(members.get('Memory')).toEqual([
      'ranges',
      'mapped',
      'writable',
      'handle',
      'begin',
      'read',
      'readMany',
      'readU64',
      'write',
      'absent',
      'scan',
      'close',
    ]);
    expect(members.get('Plan')).toEqual(['unexpected']);
  });

  it('names what the binary exports, and nothing else', () => {
    // The module `bindings` adds the path it loaded.
    const exported = Object.keys(binary).filter((name) => name !== 'path');
    expect(exported.sort()).toEqual(names.sort());
    for (const name of names) expect(typeof binary[name], name).toBe('function');
  });

  it.each([...members])('has the members of %s', (name, expected) => {
    const prototype = binary[name]!.prototype;
    const actual = Object.getOwnPropertyNames(prototype).filter(
      (member) => member !== 'constructor',
    );
    expect(actual.sort()).toEqual([...expected].sort());
    expect(Object.getOwnPropertySymbols(prototype)).toEqual([]);
    // The first two are V8's, and gone in Node 26.
    const ofEveryFunction = ['arguments', 'caller', 'length', 'name', 'prototype'];
    expect(ofEveryFunction).toEqual(
      expect.arrayContaining(Object.getOwnPropertyNames(binary[name])),
    );
  });

  it('adds nothing to the objects that is not a member of their class', () => {
    using ram = new Ram(0x4000);
    const memory = ram.open();
    for (const object of [memory, ram.space(memory), new (addon().Plan)(Int32Array.of(-1, 0, 8))]) {
      const known = members.get(object.constructor.name)!;
      for (const key of Reflect.ownKeys(object)) expect(known).toContain(key);
      expect(Object.keys(object)).toEqual([]);
    }
    memory.close();
  });
});

describe('every method', () => {
  /** Methods that take no argument, and return. */
  const WITHOUT = new Set(['Memory.begin', 'Memory.close', 'AddressSpace.flush']);

  it('refuses to be called without its arguments', () => {
    using ram = new Ram(0x4000);
    const memory = ram.open();
    for (const [name, object] of Object.entries({
      Memory: memory,
      AddressSpace: ram.space(memory),
      ListWalker: new (addon().ListWalker)(
        ram.space(memory),
        new (addon().Plan)(Int32Array.of(-1, 0, 8)),
        0,
      ),
    })) {
      for (const member of members.get(name)!) {
        if (WITHOUT.has(`${name}.${member}`)) continue;
        const descriptor = Object.getOwnPropertyDescriptor(binary[name]!.prototype, member)!;
        if (descriptor.get !== undefined) continue;
        const own = (object as unknown as Record<string, () => unknown>)[member]!;
        for (const method of [own, descriptor.value as () => unknown]) {
          expect(() => method.call(object), `${name}.${member}()`).toThrow(
            /^Expected .+ but received undefined$/,
          );
        }
      }
    }
    expect(() => (addon().openMemory as () => unknown)()).toThrow(TypeError);
    memory.close();
  });

  it('refuses a receiver of another class', () => {
    using ram = new Ram(0x4000);
    const memory = ram.open();
    const space = ram.space(memory);
    const plan = new (addon().Plan)(Int32Array.of(-1, 0, 8));
    const receivers: Record<string, unknown> = {
      Memory: memory,
      AddressSpace: space,
      Plan: plan,
      ListWalker: new (addon().ListWalker)(space, plan, 0),
    };
    const strangers = [
      undefined,
      null,
      1,
      {},
      [],
      new Proxy(memory, {}),
      Object.create(memory),
      addon(),
    ];
    for (const name of ['Memory', 'AddressSpace', 'Plan', 'ListWalker', 'Libvmi']) {
      if (binary[name] === undefined) continue;
      const prototype = binary[name].prototype;
      const others = Object.entries(receivers).filter(([other]) => other !== name);
      for (const [member, descriptor] of Object.entries(
        Object.getOwnPropertyDescriptors(prototype),
      )) {
        if (member === 'constructor') continue;
        const call = (descriptor.get ?? descriptor.value) as (...args: unknown[]) => unknown;
        for (const receiver of [...strangers, ...others.map(([, object]) => object), prototype]) {
          expect(() => call.call(receiver, 0n, new Uint8Array(8)), `${name}.${member}`).toThrow(
            TypeError,
          );
        }
      }
    }
    memory.close();
  });

  it('refuses objects that only look right as arguments', () => {
    using ram = new Ram(0x4000);
    const memory = ram.open();
    const { AddressSpace, ListWalker, Plan } = addon();
    const space = ram.space(memory);
    const plan = new Plan(Int32Array.of(-1, 0, 8));
    const none = new BigUint64Array(0);
    for (const fake of [{}, Object.create(memory), new Proxy(memory, {}), plan, space, undefined]) {
      expect(() => new AddressSpace(fake as never, 0x1000n, 4)).toThrow(
        /^Expected memory to be a Memory/,
      );
    }
    for (const fake of [{}, Object.create(space), new Proxy(space, {}), memory, plan, undefined]) {
      expect(() => new ListWalker(fake as never, plan, 0)).toThrow(
        /^Expected space to be a AddressSpace/,
      );
    }
    for (const fake of [{}, Object.create(plan), new Proxy(plan, {}), memory, space, undefined]) {
      expect(() => space.gather(fake as never, none, new Uint8Array(8))).toThrow(
        /^Expected plan to be a Plan/,
      );
      expect(() => new ListWalker(space, fake as never, 0)).toThrow(/^Expected plan to be a Plan/);
    }
    memory.close();
  });

  it('works on an object that was made with another new.target', () => {
    using ram = new Ram(0x4000);
    ram.put64(0x3000, 7n);
    const memory = ram.open();
    const { AddressSpace, Memory, Plan } = addon();
    // An AddressSpace with the methods of Memory: none of them takes it for one.
    const mixed = Reflect.construct(AddressSpace, [memory, 0x1000n, 4], Memory) as object;
    const methods = Memory.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
    expect(() => methods.readU64!.call(mixed, 0x3000n)).toThrow(TypeError);
    expect(() => methods.close!.call(mixed)).toThrow(TypeError);
    expect(() => (mixed as { ranges: unknown }).ranges).toThrow(TypeError);
    expect(() => Reflect.construct(Memory, [], AddressSpace)).toThrow(TypeError);
    class Derived extends Plan {}
    expect(new Derived(Int32Array.of(-1, 0, 8))).toBeInstanceOf(Plan);
    expect(memory.readU64(0x3000n)).toBe(7n);
    memory.close();
  });

  it('cannot be called as a constructor, nor a class as a function', () => {
    const { AddressSpace, Memory, Plan } = addon();
    expect(() => new (Memory as unknown as new () => unknown)()).toThrow(
      'Expected a call of openMemory() but received new Memory()',
    );
    for (const made of [AddressSpace, Memory, Plan]) {
      expect(() => (made as unknown as () => unknown)()).toThrow(TypeError);
    }
  });
});
