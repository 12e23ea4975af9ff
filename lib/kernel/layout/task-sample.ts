import { wrap } from '../../address.js';
import { type GuestWords, isPointer } from './guest-words.js';

/** A task and the first bytes of its `task_struct`, as they were when it was sampled. */
export class SampledTask {
  readonly address: bigint;
  readonly #bytes: Buffer;

  constructor(address: bigint, bytes: Buffer) {
    this.address = address;
    this.#bytes = bytes;
  }

  u32(offset: number): number {
    return this.#bytes.readUInt32LE(offset);
  }

  u64(offset: number): bigint {
    return this.#bytes.readBigUInt64LE(offset);
  }

  bytes(offset: number, length: number): Buffer {
    return this.#bytes.subarray(offset, offset + length);
  }

  get length(): number {
    return this.#bytes.length;
  }
}

/** How tasks are sampled. */
export interface SampleOptions {
  /** Bytes of each `task_struct` that are of interest. */
  readonly length: number;
  /** Tasks at most. */
  readonly max: number;
  /** Whether the end of those bytes may be absent, and counts as zeroes then. */
  readonly partly?: boolean;
}

/**
 * Tasks by the kernel's list of processes: init_task, then those that were made first and those
 * that were made last.
 * @param tasks offset of `task_struct.tasks`
 */
export function sampleTasks(
  words: GuestWords,
  initTask: bigint,
  tasks: number,
  { length, max, partly }: SampleOptions,
): SampledTask[] {
  const sampled = new Map<bigint, SampledTask>();
  const take = (address: bigint): SampledTask | undefined => {
    const bytes = partly ? words.atMost(address, length) : words.bytes(address, length);
    if (bytes === undefined) return undefined;
    const task = new SampledTask(address, bytes);
    sampled.set(address, task);
    return task;
  };
  const first = take(initTask);
  if (first === undefined) return [];
  const follow = (link: number, until: number): SampledTask[] => {
    const found: SampledTask[] = [];
    let at: SampledTask | undefined = first;
    while (at !== undefined && sampled.size < until) {
      const next: bigint = wrap(at.u64(tasks + link) - BigInt(tasks));
      if (!isPointer(next) || sampled.has(next)) break;
      at = take(next);
      // A neighbour that does not point back is of another list, or just being taken out of this.
      if (at !== undefined) found.push(at);
    }
    return found;
  };
  const oldest = follow(0, max / 2);
  const newest = follow(8, max);
  return [first, ...oldest, ...newest.reverse()];
}
