import { wrap } from '../address.js';
import { hex } from '../errors.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { namedMembers } from '../objects/members.js';
import { placeText, symbolAt } from '../objects/place-text.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';
import { type PageState, pageState, vmas } from './mm.js';
import { modules } from './modules.js';
import { slabObject } from './slab.js';
import { processes, threads } from './tasks.js';

/** THREAD_SIZE without KASAN. arch/x86/include/asm/page_64_types.h. */
const THREAD_SIZE = 16_384;

/** One thing that an address is. */
export interface Fact {
  readonly kind:
    | 'symbol'
    | 'per-cpu'
    | 'module'
    | 'task'
    | 'stack'
    | 'slab'
    | 'direct map'
    | 'mapped'
    | 'not mapped'
    | 'user';
  /** For people: `task_struct of 1 (init) + 0x910 (comm)`. */
  readonly text: string;
  /** What it belongs to, where that is a structure. */
  readonly object?: StructObject;
}

/** Where the direct map of a kernel is. */
export interface Layout {
  readonly pageOffset: bigint;
}

/**
 * Says what a kernel address is: a symbol, a CPU's part of a variable, a module, a task's structure
 * or stack, an object of a cache, and the physical memory behind it. All that holds, the narrowest
 * first.
 */
export function whatIs(objects: KernelObjects, address: bigint, { pageOffset }: Layout): Fact[] {
  const facts: Fact[] = [];
  const symbol = symbolAt(objects.symbols, address);
  if (symbol !== undefined) facts.push({ kind: 'symbol', text: symbol });
  facts.push(...perCpuFacts(objects, address), ...moduleFacts(objects, address));
  facts.push(...taskFacts(objects, address));
  const { physical, pageSize } = objects.memory.walk(address);
  if (physical === undefined) return [...facts, { kind: 'not mapped', text: 'not mapped' }];
  const slab = slabObject(objects, physical, pageOffset);
  if (slab !== undefined) {
    const { cache, start, size, object } = slab;
    const offset = wrap(pageOffset + physical) - start;
    const text = `${cache} object at ${hex(start)} (${size} bytes) + ${hex(offset)}`;
    facts.push({ kind: 'slab', text, object });
  }
  const direct = wrap(pageOffset + physical) === address;
  const text = `physical ${hex(physical)}, in a page of ${pageSize} bytes`;
  facts.push({ kind: direct ? 'direct map' : 'mapped', text });
  return facts;
}

/**
 * Says what an address of a process's user memory is: its part of the address space, and where the
 * page is.
 * @param mm `struct mm_struct`
 */
export function whatIsUser(objects: KernelObjects, mm: StructObject, address: bigint): Fact[] {
  const state: PageState = pageState(objects, mm, address);
  for (const { start, end, flags, offset, name, object } of vmas(mm)) {
    if (address < start || address >= end) continue;
    const at =
      object.vm_file === null ? '' : `, offset ${hex(offset + address - start)} in the file`;
    const text = `${hex(start)}-${hex(end)} ${flags} ${name}${at}, ${state}`;
    return [{ kind: 'user', text, object }];
  }
  return [{ kind: 'not mapped', text: 'no part of the address space' }];
}

/** The part of a CPU: from `__per_cpu_start` to `__per_cpu_end`, moved by that CPU's offset. */
function perCpuFacts(objects: KernelObjects, address: bigint): Fact[] {
  const start = objects.symbols.find('__per_cpu_start');
  const end = objects.symbols.find('__per_cpu_end');
  if (start === undefined || end === undefined) return [];
  for (const cpu of objects.onlineCpus()) {
    const offset = wrap(address - objects.perCpuOffset(cpu));
    if (offset < start || offset >= end) continue;
    const symbol = perCpuSymbol(objects, offset);
    return [{ kind: 'per-cpu', text: `cpu${cpu}:${symbol ?? hex(offset - start)}` }];
  }
  return [];
}

/** Per-CPU symbols of most kernels are offsets from 0, which are none of the image's. */
function perCpuSymbol(objects: KernelObjects, offset: bigint): string | undefined {
  const place = objects.symbols.at(offset);
  if (place !== undefined) return placeText(place);
  let best: { name: string; address: bigint } | undefined;
  for (const { name, address } of objects.symbols.entries()) {
    if (address > offset) break;
    best = { name, address };
  }
  if (best === undefined) return undefined;
  return placeText({ ...best, offset: Number(offset - best.address) });
}

function moduleFacts(objects: KernelObjects, address: bigint): Fact[] {
  for (const { name, ranges, object } of modules(objects)) {
    for (const { start, length } of ranges) {
      if (address < start || address >= start + BigInt(length)) continue;
      return [{ kind: 'module', text: `${name} + ${hex(address - start)}`, object }];
    }
  }
  return [];
}

/**
 * A task is allocated without the end of its last member that its CPU does not need
 * (arch_task_struct_size), so that the next one may begin within what its type says: the nearest
 * counts.
 */
function taskFacts(objects: KernelObjects, address: bigint): Fact[] {
  const size = BigInt(objects.sizeof('struct task_struct'));
  const stackSize = BigInt(objects.types.findSize('thread_union') ?? THREAD_SIZE);
  let nearest: StructObject | undefined;
  for (const leader of processes(objects)) {
    for (const task of threads(leader)) {
      const offset = address - task.$address;
      const within = offset >= 0n && offset < size;
      if (within && (nearest === undefined || task.$address > nearest.$address)) nearest = task;
      const stack = (task.stack as Pointer | null)?.value;
      if (stack === undefined || address < stack || address >= stack + stackSize) continue;
      const text = `stack of ${task.pid} (${task.comm}) + ${hex(address - stack)}`;
      return [{ kind: 'stack', text, object: task }];
    }
  }
  if (nearest === undefined) return [];
  const offset = address - nearest.$address;
  const member = memberAt(nearest, Number(offset));
  const text = `task_struct of ${nearest.pid} (${nearest.comm}) + ${hex(offset)}${member}`;
  return [{ kind: 'task', text, object: nearest }];
}

/** ` (comm)`: the member that an offset is in. */
function memberAt(object: StructObject, offset: number): string {
  const member = namedMembers(object.$struct).find(
    (one) => offset >= one.offset && offset < one.offset + Math.max(one.size, 1),
  );
  return member === undefined ? '' : ` (${member.name})`;
}
