import { PF_EXITING, PF_KTHREAD } from './case.js';
import { type Inference, nearly } from './inference.js';
import type { SampledTask } from './task-sample.js';

/** Bits of a task's state; TASK_NOLOAD is that of kernel threads that sleep without being load. */
const STATE_BITS = 0x1_ffff;
const TASK_NOLOAD = 0x400;
/** The state comes right behind `thread_info`, before anything that is shuffled. */
const STATE_END = 64;
/** EXIT_DEAD, EXIT_ZOMBIE. include/linux/sched.h. */
const EXIT_BITS = 0x30;
const SIGCHLD = 17;

/** The state: known bits only, some tasks that sleep, and some kernel threads that are no load. */
export function inferState(of: Inference): void {
  const flags = of.offset('task_struct.flags');
  if (flags === undefined) return;
  const isKernel = (task: SampledTask) => (task.u32(flags) & PF_KTHREAD) !== 0;
  const places = of
    .search(of.others, 4, (task, at) => at < STATE_END && (task.u32(at) & ~STATE_BITS) === 0)
    .filter((at) => of.others.some((task) => task.u32(at) === 1))
    .filter((at) => of.others.some((task) => isKernel(task) && (task.u32(at) & TASK_NOLOAD) !== 0));
  of.settle('task_struct.__state', places);
}

/** The exit state: set in those that have exited, and in no other. */
export function inferExitState(of: Inference): void {
  const flags = of.offset('task_struct.flags');
  const mm = of.offset('task_struct.mm') ?? of.undecided.get('task_struct.mm')?.[0];
  if (flags === undefined || mm === undefined) return;
  const exits = (task: SampledTask) =>
    task.u64(mm) === 0n && (task.u32(flags) & (PF_EXITING | PF_KTHREAD)) === PF_EXITING;
  const living = of.others.filter((task) => !exits(task));
  const dead = of.others.filter(exits);
  const zero = of.search(living, 4, (task, at) => task.u32(at) === 0);
  const marked = zero.filter(
    (at) =>
      dead.length > 0 &&
      nearly(dead, (task) => [0x10, 0x20].includes(task.u32(at) & EXIT_BITS)) &&
      nearly(dead, (task) => (task.u32(at) & ~EXIT_BITS) === 0),
  );
  if (marked.length === 1) {
    of.place('task_struct.exit_state', marked[0]!);
    return;
  }
  // Declared side by side: exit_state, exit_code, exit_signal, which is SIGCHLD for processes.
  const users = living.filter((task) => task.u64(mm) !== 0n).slice(1);
  const candidates = marked.length > 0 ? marked : zero;
  const before = candidates.filter(
    (at) => zero.includes(at + 4) && nearly(users, (task) => task.u32(at + 8) === SIGCHLD),
  );
  if (before.length === 1) of.place('task_struct.exit_state', before[0]!, 'by order');
  else of.undecided.set('task_struct.exit_state', before.length > 0 ? before : marked);
}
