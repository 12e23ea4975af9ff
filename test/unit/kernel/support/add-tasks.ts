/** Writes to the image of a made guest, by offset in it. */
export interface ImageWriter {
  /** Virtual address of an offset. */
  virtual(offset: bigint): bigint;
  u64(offset: bigint, value: bigint): void;
}

/** PF_KTHREAD. include/linux/sched.h. */
const PF_KTHREAD = 0x20_0000n;
const PAGE = 0x1000n;

/**
 * Gives tasks all that a row of theirs is made of, at the members of `kernelBtf(true)`: a struct
 * pid in the tree of PIDs, credentials, a signal_struct with one thread.
 *
 * @param tasks offsets of their task_structs; the number of each is its PID, and 1 is a process
 * @param free offset of pages to put the rest in: four and one a task
 */
export function addTasks(
  image: ImageWriter,
  tasks: readonly bigint[],
  initPidNs: bigint,
  free: bigint,
): void {
  const { virtual, u64 } = image;
  const [cred, node] = [free, free + PAGE];
  for (const [pid, task] of tasks.entries()) {
    const struct = free + 2n * PAGE + BigInt(pid) * PAGE;
    const signal = struct + 0x400n;
    // task_struct.__state (asleep, but for the idle task), flags, real_parent, thread_pid,
    // start_time, real_cred, signal.
    u64(task + 0x18n, pid === 0 ? 0n : 1n);
    u64(task + 0x2cn, pid === 1 ? 0x40_0000n : PF_KTHREAD);
    u64(task + 0x170n, virtual(tasks[0]!));
    u64(task + 0x180n, virtual(struct));
    u64(task + 0x1c0n, BigInt(pid) * 1_000_000n);
    u64(task + 0x1d0n, virtual(cred));
    u64(task + 0x220n, virtual(signal));
    // pid.count and level, tasks[PIDTYPE_PID], numbers[0].
    u64(struct, 3n);
    u64(struct + 16n, virtual(task + 0x188n));
    u64(struct + 96n, BigInt(pid));
    u64(struct + 104n, virtual(initPidNs));
    u64(task + 0x190n, virtual(struct + 16n));
    // signal_struct.thread_head and task_struct.thread_node, both ways.
    for (const way of [0n, 8n]) {
      u64(signal + 16n + way, virtual(task + 0x1a8n));
      u64(task + 0x1a8n + way, virtual(signal + 16n));
    }
    // PID 0 is in no tree of a real kernel; of three tasks here, each has to be found.
    u64(node + 40n + BigInt(pid) * 8n, virtual(struct));
  }
  // pid_namespace.idr.idr_rt.xa_head: a node, tagged 2, of one level.
  u64(initPidNs + 8n, virtual(node) + 2n);
}
