import { VmiError } from '../errors.js';

/** Highest PID that a 32-bit pid_t can hold. */
const MAX_PID = 0x7fff_ffff;

/**
 * @throws {RangeError} no PID @throws {VmiError} `VMI_NO_TASK` for 0, which names no single task
 */
export function checkPid(pid: number): number {
  if (typeof pid !== 'number')
    throw new TypeError(`Expected pid as a number but received ${typeof pid}`);
  if (!Number.isInteger(pid) || pid < 0 || pid > MAX_PID) {
    throw new RangeError(`Expected pid as an integer between 1 and ${MAX_PID} but received ${pid}`);
  }
  if (pid === 0) {
    throw new VmiError(
      'VMI_NO_TASK',
      'PID 0 names no single task: every CPU has an idle task with it. Ask for what the CPUs run (cpus) instead',
    );
  }
  return pid;
}

/** Says that no task has the PID. */
export function noTask(pid: number): VmiError {
  return new VmiError(
    'VMI_NO_TASK',
    `there is no task with PID ${pid} in this guest (a PID of the initial namespace, or a thread's id)`,
  );
}
