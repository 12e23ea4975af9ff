import type { NativeSamplerOptions } from '../../types/addon.js';
import { wrap } from '../address.js';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';

/** In a list of addresses: the kernel does not show it. */
const ABSENT = 0xffff_ffff_ffff_ffffn;

/** Where one kernel keeps what its CPUs run. */
export interface SwitchLayout {
  /** Numbers of the CPUs that are looked at; an index into this is what a record calls its CPU. */
  readonly cpus: readonly number[];
  readonly native: Pick<NativeSamplerOptions, 'cpus' | 'windows' | 'task' | 'pgd'>;
  /** Whether switches that were not seen can be counted (`rq.nr_switches`). */
  readonly counts: boolean;
  /** Whether the begin of a slice is known (`sched_info.last_arrival`). */
  readonly arrivals: boolean;
  /** What this kernel does not show, and what follows from it; empty for a usual one. */
  readonly limits: readonly string[];
}

/**
 * Looks up where this kernel keeps its run queues, current tasks and loaded address spaces.
 * @param wanted CPU numbers; all that are online when left out
 * @throws {RangeError} a CPU that is not online
 * @throws {VmiError} `VMI_SYMBOL`, `VMI_TYPE`: neither run queue nor current task is to be found
 * @throws {VmiError} `VMI_UNSUPPORTED`: a PV guest of Xen, whose memory has no linear mappings
 */
export function switchLayout(kernel: Kernel, wanted?: readonly number[]): SwitchLayout {
  if (kernel.image.windows.length === 0) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      'the CPUs of a PV guest of Xen cannot be sampled: its memory is not mapped linearly',
    );
  }
  const cpus = chooseCpus(kernel, wanted);
  const places = perCpuPlaces(kernel);
  const { types } = kernel;
  const task = (member: string) => types.offset('task_struct', member);
  const arrival = types.findOffset('task_struct', 'sched_info.last_arrival');
  const limits: string[] = [];
  if (places.count === undefined)
    limits.push('rq.nr_switches is not shown: switches that were not seen are not counted');
  if (arrival === undefined)
    limits.push('task_struct has no sched_info: when a slice began is not known');
  if (places.curr === undefined || places.current === undefined)
    limits.push('the running task has one name only: a switch under way is told less surely');
  if (places.lock === undefined)
    limits.push(
      'the lock of rq is not shown: of a switch under way the count may be told one switch early',
    );
  if (places.loadedMm === undefined)
    limits.push('cpu_tlbstate.loaded_mm is not shown: CR3 is not known');
  return {
    cpus,
    counts: places.count !== undefined,
    arrivals: arrival !== undefined,
    limits,
    native: {
      cpus: BigUint64Array.from(
        cpus.flatMap((cpu) => {
          const base = kernel.perCpuOffset(cpu);
          const { count, curr, current, loadedMm, lock } = places;
          return [count, curr, current, loadedMm, lock].map((address) =>
            address === undefined ? ABSENT : kernel.memory.translate(wrap(address + base)),
          );
        }),
      ),
      windows: BigUint64Array.from(
        kernel.image.windows.flatMap(({ virtual, length, physical }) => [
          virtual,
          length,
          physical,
        ]),
      ),
      task: Int32Array.of(
        arrival ?? -1,
        task('pid'),
        task('tgid'),
        task('flags'),
        task('mm'),
        task('start_time'),
        task('comm'),
        commLock(kernel),
      ),
      pgd: types.offset('mm_struct', 'pgd'),
    },
  };
}

/**
 * Offset of the word of `task_struct.alloc_lock` that is 0 while it is free: it is held while
 * `comm` is written, under PREEMPT_RT as a mutex with an owner. Since commit 3a3f61ce5e0b, merged
 * for 6.14, `__set_task_comm` (fs/exec.c) writes it without the lock: a free one says nothing then,
 * and only the second look at the name does.
 */
function commLock({ types }: Kernel): number {
  const spin = types.findOffset('task_struct', 'alloc_lock.rlock.raw_lock');
  return spin ?? types.findOffset('task_struct', 'alloc_lock.lock.owner') ?? -1;
}

/**
 * Addresses of per-CPU words, to be moved by each CPU's offset; `undefined` where the kernel does
 * not show one.
 */
export interface Places {
  readonly count: bigint | undefined;
  readonly curr: bigint | undefined;
  readonly current: bigint | undefined;
  readonly loadedMm: bigint | undefined;
  /** The word of the run queue's lock that is 0 while it is free, as it is between switches. */
  readonly lock: bigint | undefined;
}

/**
 * Where this kernel keeps what its CPUs run.
 * @throws {VmiError} `VMI_SYMBOL`: it shows neither run queues nor current tasks
 */
export function perCpuPlaces({ symbols, types }: Kernel): Places {
  const member = (symbol: string, struct: string, name: string) => {
    const base = symbols.find(symbol);
    const offset = base === undefined ? undefined : types.findOffset(struct, name);
    return offset === undefined ? undefined : base! + BigInt(offset);
  };
  const curr = member('runqueues', 'rq', 'curr');
  // `current_task` was moved into `pcpu_hot` in commit e57ef2ed97c1 (6.2) and out of it again after
  // 6.14.
  const current =
    member('pcpu_hot', 'pcpu_hot', 'current_task') ?? symbols.find('current_task') ?? undefined;
  if (curr === undefined && current === undefined) {
    throw new VmiError(
      'VMI_SYMBOL',
      "this kernel shows neither its run queues (runqueues) nor its CPUs' tasks (current_task): its switches cannot be sampled",
    );
  }
  return {
    count: member('runqueues', 'rq', 'nr_switches'),
    curr,
    current,
    loadedMm: member('cpu_tlbstate', 'tlb_state', 'loaded_mm'),
    // `lock` became `__lock` in commit 5cb9eaa3d274 (5.14). A kernel for one CPU has no such word.
    lock:
      member('runqueues', 'rq', '__lock.raw_lock.val') ??
      member('runqueues', 'rq', 'lock.raw_lock.val'),
  };
}

function chooseCpus(kernel: Kernel, wanted: readonly number[] | undefined): number[] {
  const online = kernel.onlineCpus();
  if (wanted === undefined) return online;
  for (const cpu of wanted) {
    if (!online.includes(cpu)) {
      throw new RangeError(
        `Expected cpus of the guest that are online (${online.join(', ')}) but received ${String(cpu)}`,
      );
    }
  }
  return [...new Set(wanted)].sort((a, b) => a - b);
}
