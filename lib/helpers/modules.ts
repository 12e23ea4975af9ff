import type { ArrayObject } from '../objects/array.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { list } from '../objects/list.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';

/** A loaded module. */
export interface Module {
  readonly name: string;
  /** Where its code begins. */
  readonly base: bigint;
  /** Bytes in all, as `/proc/modules` says. */
  readonly size: number;
  /** `LIVE`, `COMING`, `GOING` or `UNFORMED`. */
  readonly state: string;
  /** Its parts in memory: address and bytes. */
  readonly ranges: readonly { readonly start: bigint; readonly length: number }[];
  /** `struct module` */
  readonly object: StructObject;
}

/** Most modules there are. */
const MAX_MODULES = 65_536;

/**
 * The modules that are loaded, the last one first: `/proc/modules`.
 *
 * Source: kernel/module/procfs.c, m_show. `struct module_memory module.mem[]` since commit
 * ac3b43283923 (6.4), `struct module_layout module.core_layout`, `.init_layout` before.
 */
export function* modules(objects: KernelObjects): Generator<Module> {
  if (!objects.has('modules')) return;
  for (const object of list(objects.variable('modules'), 'struct module', 'list', MAX_MODULES)) {
    const ranges = parts(object).filter(({ length }) => length > 0);
    const state = String(object.state).replace(/^MODULE_STATE_/, '');
    yield {
      name: object.name,
      base: ranges[0]?.start ?? 0n,
      size: ranges.reduce((sum, { length }) => sum + length, 0),
      state,
      ranges,
      object,
    };
  }
}

function parts(module: StructObject): { start: bigint; length: number }[] {
  const all: StructObject[] = module.$has('mem')
    ? [...(module.mem as ArrayObject as Iterable<StructObject>)]
    : [module.core_layout, module.init_layout];
  return all.map(({ base, size }) => ({
    start: (base as Pointer | null)?.value ?? 0n,
    length: size as number,
  }));
}
