import { TEXT_ENTRY } from '../kernel/x86-64.js';
import { at, bytesFrom, NamedPlan } from '../memory/plan.js';
import type { TaskMembers } from './task-members.js';

/** Reads page directories of `mm_struct`s. */
export class AddressSpaces {
  readonly #members: TaskMembers;
  readonly #plan: NamedPlan<'pgd' | 'textEntry'>;

  /** @throws {VmiError} `VMI_TYPE` */
  constructor(members: TaskMembers) {
    this.#members = members;
    this.#plan = new NamedPlan(members.kernel.types, {
      pgd: at('mm_struct', 'pgd'),
      textEntry: bytesFrom('pgd', Number(TEXT_ENTRY)),
    });
  }

  /**
   * PGD of each `mm_struct`, checked: page-aligned, readable, and its entry for the kernel's text
   * is the kernel's own.
   * @returns 0 where it is none
   */
  pgds(mms: BigUint64Array): BigUint64Array {
    const { kernel, pageTable } = this.#members;
    const rows = this.#plan.gather(kernel.memory, mms);
    const entries = rows.longs('textEntry');
    return rows
      .longs('pgd')
      .map((pgd, i) => (rows.faults[i] === 0 && pageTable.accepts(pgd, entries[i]!) ? pgd : 0n));
  }
}
