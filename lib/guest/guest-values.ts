import { type AddressLike, toAddress } from '../address.js';
import { editorTypes } from '../export/editor-types.js';
import { type Fact, whatIs, whatIsUser } from '../helpers/what-is.js';
import type { VcpuRegisters } from '../memory/registers.js';
import { type KernelObjects, objectsOf } from '../objects/kernel-objects.js';
import type { ValueOf } from '../objects/kernel-types.js';
import type { Place } from '../objects/struct-object.js';
import { checkOptions } from '../options.js';
import type { Stack } from '../stacks/frames.js';
import { unwinderOf } from '../stacks/unwind.js';
import type { GuestCpu } from './guest-cpu.js';
import { GuestMemory } from './guest-memory.js';
import { checkPid } from './pid.js';
import { registersOf } from './running.js';
import { type Pattern, type SearchHit, type SearchOptions, search, userSpace } from './search.js';

/** The side of a guest that is its kernel's values. */
export abstract class GuestValues extends GuestMemory {
  abstract cpus(): GuestCpu[];
  abstract registers(): Promise<VcpuRegisters[]>;

  /** Values of the kernel by their C types; {@link object} and its like are short for it. */
  get objects(): KernelObjects {
    return objectsOf(this.kernel);
  }

  /**
   * The value of a C type at an address: `guest.object('task_struct', guest.task(1))`.
   * @throws {VmiError} `VMI_TYPE` with names that come close
   */
  object<Name extends string>(type: Name, address: Place): ValueOf<Name> {
    return this.objects.object(type, address) as ValueOf<Name>;
  }

  /**
   * A kernel variable by name: `guest.variable('init_task')`.
   * @param type its C type, where the kernel's own types do not tell
   * @throws {VmiError} `VMI_SYMBOL`, `VMI_TYPE`
   */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  variable(name: string, type?: string): any {
    return this.objects.variable(name, type);
  }

  /**
   * A declaration file for TypeScript, a piece at a time: with it, {@link object} knows the members
   * of this kernel's structures.
   */
  editorTypes(): Generator<string> {
    return editorTypes(this.kernel.types, this.kernel.release);
  }

  /**
   * What a CPU has of a per-CPU variable: `guest.perCpu('runqueues', 1)`.
   * @throws {VmiError} as {@link variable}
   * @throws {RangeError} no such CPU
   */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  perCpu(name: string, cpu: number, type?: string): any {
    return this.objects.perCpu(name, cpu, type);
  }

  /**
   * Says what a kernel address is, or with `pid` an address of that process: symbol, task, stack,
   * object of a cache, module, part of an address space, and the memory behind it. All that holds,
   * the narrowest first.
   * @throws {RangeError} no address @throws {VmiError} `VMI_NO_TASK`, `VMI_UNSUPPORTED`
   */
  whatIs(address: AddressLike, options: { readonly pid?: number } = {}): Fact[] {
    checkOptions(options, { pid: true });
    const { pid } = options;
    const place = toAddress(address);
    if (pid === undefined) return whatIs(this.objects, place, this.kernel);
    const { mm } = userSpace(this.kernel, this.task(pid).object);
    return whatIsUser(this.objects, mm, place);
  }

  /**
   * Registers of the vCPU that runs a task, if one does.
   * @throws {VmiError} `VMI_NO_TASK`; `VMI_UNSUPPORTED`: it does not run, or the source has no
   *   registers; `VMI_BUSY`: it moves between CPUs: pause the guest first
   */
  registersOf(pid: number): Promise<VcpuRegisters> {
    return registersOf(this, checkPid(pid));
  }

  /**
   * The kernel functions that a task is in, whether it waits or runs: as `task.stack()` off the
   * CPU, from its CPU's registers on one, where `vcpu` of the stack says so. Empty in user mode.
   * @throws {VmiError} as `task.stack()` and {@link registersOf}
   */
  async stack(pid: number): Promise<Stack> {
    const task = this.task(checkPid(pid));
    if (!this.cpus().some((cpu) => cpu.task.pid === pid)) return task.stack();
    const registers = await this.registersOf(pid);
    return unwinderOf(this.objects).running(task.address, registers);
  }

  /**
   * Searches RAM, or the user memory of a process, for bytes, text or a number.
   * @throws {RangeError} the pattern, `align` or `pid`
   * @throws {VmiError} `VMI_NO_TASK`, `VMI_UNSUPPORTED`: no process with memory; `VMI_ABORTED`
   * @example
   * for await (const { address } of guest.search('root:x:0', { pid: 1 })) console.log(address);
   */
  search(pattern: Pattern, options: SearchOptions = {}): AsyncGenerator<SearchHit> {
    return search(this.kernel, pattern, options, (pid) =>
      userSpace(this.kernel, this.task(pid).object),
    );
  }
}
