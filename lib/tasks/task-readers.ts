import type { Kernel } from '../kernel/kernel.js';
import { AddressSpaces } from './address-spaces.js';
import { CpuReader } from './cpus.js';
import { NamespacePids } from './namespace-pids.js';
import { PidTree } from './pid-tree.js';
import { TaskMembers } from './task-members.js';
import { ThreadLinks } from './threads.js';

/** What reads parts of tasks from one kernel, made once: each knows where its members are. */
export class TaskReaders {
  readonly kernel: Kernel;
  readonly members: TaskMembers;
  readonly spaces: AddressSpaces;
  readonly threadLinks: ThreadLinks;
  readonly namespaces: NamespacePids;
  readonly pidTree: PidTree;
  #cpus: CpuReader | undefined;

  /** @throws {VmiError} `VMI_TYPE`: this kernel's types lack what a task row needs */
  constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.members = new TaskMembers(kernel);
    this.spaces = new AddressSpaces(this.members);
    this.threadLinks = new ThreadLinks(this.members);
    this.namespaces = new NamespacePids(kernel);
    this.pidTree = new PidTree(this.members);
  }

  /** @throws {VmiError} `VMI_SYMBOL` or `VMI_TYPE`: this kernel does not say what its CPUs run */
  get cpus(): CpuReader {
    if (this.#cpus === undefined) {
      this.#cpus = new CpuReader(this.members);
      // Symbols that attaching did not need: where reads are slow, looking for one takes seconds.
      void this.kernel.remember();
    }
    return this.#cpus;
  }
}
