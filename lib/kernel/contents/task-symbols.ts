import { wrap } from '../../address.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import { checkAborted } from '../aborted.js';
import type { MappedImage } from '../image.js';
import { GuestWords, isPointer } from '../layout/guest-words.js';
import { sampleTasks } from '../layout/task-sample.js';
import type { LazySymbols } from '../symbols/lazy.js';
import { tryAnswer } from '../try-answer.js';
import type { TypeTable } from '../types/table.js';
import { findCpuAreas, readImage } from './cpu-areas.js';
import { type CpuSearch, cpuBytes, findCurrentTask, findLoadedMm } from './cpu-symbols.js';
import { findInitTask } from './init-task.js';

/** Where the namespace is in a `struct upid`: behind the number. include/linux/pid.h. */
const UPID_NS = 8;
/** Tasks whose namespace is looked at: the first ones are in no other. */
const TASKS = 4;
/** Tables of per-cpu variables that are tried: of a guest with one CPU many look like one. */
const MAX_TABLES = 256;

/** A kernel's image, and what it is searched with. */
export interface TaskSymbolSearch {
  readonly space: VirtualMemory;
  readonly image: MappedImage;
  readonly symbols: LazySymbols;
  readonly types: TypeTable;
  /** Whether the kernel is for one CPU only (CONFIG_SMP is not set): it has no per-cpu copies. */
  readonly single: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * Finds by their contents the variables by which tasks are read, where the kernel's symbols lack
 * them (without CONFIG_KALLSYMS_ALL, or without kallsyms), and adds them to the symbols. What is
 * not found stays unknown.
 */
export async function findTaskSymbols(search: TaskSymbolSearch): Promise<void> {
  const { space, image, symbols, signal } = search;
  if (symbols.find('init_task') !== undefined || !image.linear) return;
  const initTask = await findInitTask(space, image, signal);
  if (initTask === undefined) return;
  symbols.add('init_task', initTask);
  const namespace = findPidNamespace(search, initTask);
  if (namespace !== undefined) symbols.add('init_pid_ns', namespace);
  checkAborted(signal);
  if (search.single) addPlain(search, initTask);
  else addPerCpu(search, initTask);
}

/** `init_pid_ns`: the namespace in which the first tasks have their first number. */
function findPidNamespace({ space, types }: TaskSymbolSearch, initTask: bigint) {
  const words = new GuestWords(space);
  const offset = (struct: string, member: string) =>
    tryAnswer(() => types.findOffset(struct, member));
  const known = [
    offset('task_struct', 'tasks'),
    offset('task_struct', 'thread_pid'),
    offset('pid', 'numbers'),
  ];
  if (known.includes(undefined)) return undefined;
  const [link, threadPid, numbers] = known as [number, number, number];
  const at = numbers + (offset('upid', 'ns') ?? UPID_NS);
  const options = { length: Math.max(link + 16, threadPid + 8), max: TASKS };
  const [, ...tasks] = sampleTasks(words, initTask, link, options);
  const spaces = new Set(tasks.map((task) => words.u64(task.u64(threadPid) + BigInt(at))));
  const [namespace, another] = spaces;
  return another === undefined && isPointer(namespace) ? namespace : undefined;
}

/** Variables of which each CPU has its own. */
function addPerCpu({ space, image, symbols, types }: TaskSymbolSearch, initTask: bigint): void {
  const bytes = readImage(space, image);
  const tried = new Set<string>();
  for (const { table, self, start, offsets } of findCpuAreas(space, image, { bytes, initTask })) {
    if (tried.size === MAX_TABLES) return;
    const key = `${start} ${offsets}`;
    if (tried.has(key)) continue;
    tried.add(key);
    const cpus = cpuBytes(space, start, offsets);
    const found = cpuVariables({ memory: space, types, initTask, start, self, cpus });
    if (found === undefined) continue;
    symbols.add('__per_cpu_offset', table);
    symbols.add('this_cpu_off', self);
    addVariables(symbols, types, found);
    return;
  }
}

/** The same of a kernel for one CPU: they are plain ones, somewhere in the image. */
function addPlain({ space, image, symbols, types }: TaskSymbolSearch, initTask: bigint): void {
  const cpus = [{ cpu: 0, bytes: readImage(space, image) }];
  const found = cpuVariables({ memory: space, types, initTask, start: image.virtual, cpus });
  if (found !== undefined) addVariables(symbols, types, found);
}

interface CpuVariables {
  readonly loaded: bigint;
  readonly current: bigint;
}

function cpuVariables(search: CpuSearch): CpuVariables | undefined {
  const loaded = findLoadedMm(search);
  const current = loaded === undefined ? undefined : findCurrentTask(search);
  return loaded === undefined || current === undefined ? undefined : { loaded, current };
}

function addVariables(
  symbols: LazySymbols,
  types: TypeTable,
  { loaded, current }: CpuVariables,
): void {
  const before = tryAnswer(() => types.findOffset('tlb_state', 'loaded_mm')) ?? 0;
  symbols.add('cpu_tlbstate', wrap(loaded - BigInt(before)));
  symbols.add('current_task', current);
}
