import type { KernelObjects } from '../objects/kernel-objects.js';
import { mapleTree } from '../objects/maple-tree.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';
import { xarray } from '../objects/xarray.js';

/** Most handlers that share one interrupt. */
const MAX_ACTIONS = 1024;

/** An interrupt that something handles, as a line of `/proc/interrupts` tells it. */
export interface Interrupt {
  readonly irq: number;
  /** How often each CPU that is online took it, in the order of the CPUs. */
  readonly counts: readonly number[];
  /** The controller: `IO-APIC`. */
  readonly chip: string;
  /** Who handles it. */
  readonly actions: readonly string[];
  /** `struct irq_desc` */
  readonly object: StructObject;
}

/**
 * The interrupts that have a handler, by ascending number: `/proc/interrupts`, its numbered lines.
 *
 * Source: kernel/irq/proc.c, show_interrupts. Descriptors are in a maple tree (`sparse_irqs`) since
 * commit 721255b9826b (6.5), in a radix tree (`irq_desc_tree`) before; a CPU's count is in a
 * `struct irqstat` by 6.12, an `unsigned int` up to 6.1.
 */
export function* interrupts(objects: KernelObjects): Generator<Interrupt> {
  const cpus = objects.onlineCpus();
  for (const object of descriptors(objects)) {
    const actions = actionsOf(object);
    if (actions.length === 0) continue;
    const stat = object.kstat_irqs as Pointer | StructObject | null;
    const counts = cpus.map((cpu) => {
      if (stat === null) return 0;
      return (('$perCpu' in stat ? stat.$perCpu(cpu).cnt : stat.perCpu(cpu).at()) as number) ?? 0;
    });
    const chip = (object.irq_data.chip?.name as Pointer | null | undefined)?.string(64) ?? 'None';
    yield { irq: object.irq_data.irq, counts, chip, actions, object };
  }
}

function* descriptors(objects: KernelObjects): Generator<StructObject> {
  if (objects.has('sparse_irqs')) {
    for (const { pointer } of mapleTree(objects.variable('sparse_irqs'))) {
      yield objects.object('struct irq_desc', pointer) as StructObject;
    }
  } else {
    for (const { pointer } of xarray(objects.variable('irq_desc_tree'))) {
      if (pointer !== undefined) yield objects.object('struct irq_desc', pointer) as StructObject;
    }
  }
}

function actionsOf(descriptor: StructObject): string[] {
  const names: string[] = [];
  let action = descriptor.action as StructObject | null;
  while (action !== null && names.length < MAX_ACTIONS) {
    names.push((action.name as Pointer | null)?.string(64) ?? '');
    action = action.next as StructObject | null;
  }
  return names;
}
