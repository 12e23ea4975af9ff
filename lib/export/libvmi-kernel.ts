import type { Kernel } from '../kernel/kernel.js';
import type { LibvmiKernel } from '../libvmi/config.js';
import { checkObject, describe } from '../options.js';

/**
 * Gives a kernel that was found with no profile in the form in which libvmi is told of one:
 * `libvmi.initOs({ kernel })`.
 *
 * Its page table is the kernel's own, not what a vCPU happened to have loaded; symbols stand where
 * they are in the running guest, so that the KASLR offset is 0. Plain data of this moment, good
 * until the guest reboots.
 *
 * @throws {VmiError} `VMI_SYMBOL`, `VMI_TYPE`: the kernel lacks what libvmi asks for
 * @example
 * await libvmi.initOs({ kernel: libvmiKernel(guest.kernel) }); // 'linux'
 */
export function libvmiKernel(kernel: Kernel): LibvmiKernel {
  const { symbols, types } = checkObject(kernel, 'kernel');
  if (symbols === undefined || types === undefined)
    throw new TypeError(
      `Expected kernel as the kernel of a guest (guest.kernel) but received ${describe(kernel)}`,
    );
  const offset = (struct: string, member: string) => types.offset(struct, member);
  const { ranges } = kernel.memory.physical;
  return {
    // Keys: libvmi/os/linux/core.c, linux_configure.
    table: {
      ostype: 'Linux',
      pagemode: 'VMI_PM_IA32E',
      linux_tasks: offset('task_struct', 'tasks'),
      linux_mm: offset('task_struct', 'mm'),
      linux_pid: offset('task_struct', 'pid'),
      linux_name: offset('task_struct', 'comm'),
      linux_pgd: offset('mm_struct', 'pgd'),
      linux_init_task: symbols.address('init_task'),
      kpgd: kernel.root,
    },
    symbols: { [Symbol.iterator]: () => symbols.entries()[Symbol.iterator]() },
    levels: kernel.levels,
    flat: ranges.length === 1 && ranges[0]!.start === 0n,
  };
}
