import { wrap } from '../../address.js';
import type { LayoutCase } from './case.js';
import { isPointer } from './guest-words.js';
import { SampledTask } from './task-sample.js';

/** Threads that are taken. */
const THREADS = 8;

/** A thread, and the leader of its process. */
export interface SampledThread {
  readonly thread: SampledTask;
  readonly leader: SampledTask;
}

/** Threads of processes that have more than one. */
export function threadsOf(of: LayoutCase): SampledThread[] {
  const known = of.all(
    'task_struct.signal',
    'signal_struct.thread_head',
    'task_struct.thread_node',
  );
  if (known === undefined) return [];
  const [signal, head, node] = known;
  const { length } = of.tasks[0]!;
  const threads: SampledThread[] = [];
  for (const leader of of.many.slice(1)) {
    const start = wrap(leader.u64(signal) + BigInt(head));
    let link = wrap(leader.address + BigInt(node));
    while (threads.length < THREADS) {
      const next = of.words.u64(link);
      if (!isPointer(next) || next === start) break;
      const address = wrap(next - BigInt(node));
      const bytes = of.words.bytes(address, length);
      if (bytes === undefined || of.words.u64(next + 8n) !== link) break;
      threads.push({ thread: new SampledTask(address, bytes), leader });
      link = next;
    }
    if (threads.length >= THREADS) break;
  }
  return threads;
}

/** Whether a thread has a PID of its own and the TGID of its leader. */
export function isThreadOf(
  thread: SampledTask,
  leader: SampledTask,
  pid: number,
  tgid: number,
): boolean {
  return thread.u32(tgid) === leader.u32(tgid) && thread.u32(pid) !== leader.u32(pid);
}
