import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { VcpuRegisters } from '../memory/registers.js';
import { cr3Base } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';
import type { GuestCpu } from './guest-cpu.js';

/** Looks at a task that moves between CPUs. */
const TRIES = 20;
/** Lowest two bits of cs: privilege. */
const USER_MODE = 3n;

/** What is asked of a guest to find out where a task runs. */
export interface RunningGuest {
  readonly kernel: Kernel;
  task(pid: number): Task;
  cpus(): GuestCpu[];
  registers(): Promise<VcpuRegisters[]>;
}

/**
 * Registers of the vCPU that runs a task: it is on that CPU before they are asked for and after.
 * @throws {VmiError} `VMI_NO_TASK`; `VMI_UNSUPPORTED`: it runs on no CPU, or which vCPU is which
 *   CPU cannot be told; `VMI_BUSY`: it does not stay on one
 */
export async function registersOf(guest: RunningGuest, pid: number): Promise<VcpuRegisters> {
  const runsOn = () => guest.cpus().find(({ task }) => task.pid === pid)?.cpu;
  let wasOn: number | undefined;
  for (let tries = 0; tries < TRIES; tries++) {
    const cpu = runsOn();
    if (cpu === undefined) continue;
    wasOn = cpu;
    const rows = await guest.registers();
    const after = guest.cpus().find(({ task }) => task.pid === pid);
    if (after?.cpu !== cpu) continue;
    const row = vcpuOf(guest.kernel, rows, after);
    if (row !== undefined) return row;
  }
  if (wasOn === undefined) {
    const task = guest.task(pid);
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `task ${task.pid} runs on no CPU: registers are those of what runs; task.stack() says where it waits`,
    );
  }
  throw new VmiError(
    'VMI_BUSY',
    `the registers that were read are not those of task ${pid}, which ran on CPU ${wasOn} meanwhile: pause the guest first`,
  );
}

/**
 * The vCPU that is a CPU of the kernel: its GS base is that CPU's per-CPU area, in kernel mode, and
 * what `swapgs` brings, in user mode. Where the source does not tell the latter, the vCPU of the
 * same number, if it has the address space of the task loaded that the CPU runs.
 */
function vcpuOf(
  kernel: Kernel,
  rows: readonly VcpuRegisters[],
  { cpu, cr3 }: GuestCpu,
): VcpuRegisters | undefined {
  const area = kernel.perCpuOffset(cpu);
  const known = rows.find(({ gsBase, kernelGsBase }) => gsBase === area || kernelGsBase === area);
  if (known !== undefined || cr3 === null) return known;
  const isIt = (row: VcpuRegisters) =>
    ((row.cs ?? 0n) & USER_MODE) === USER_MODE && cr3Base(row.cr3, kernel.pti) === cr3;
  const same = rows.filter(isIt);
  return same.length === 1 ? same[0] : same.find(({ vcpu }) => vcpu === cpu);
}
