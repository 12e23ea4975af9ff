import type { AddressSpace, ListWalker, Memory, Plan } from '../../../types/addon.js';
import { VmiError } from '../../errors.js';
import type { Engine } from '../engine.js';
import { ScriptedAddressSpace } from './address-space.js';
import { scriptedLoader } from './loader.js';
import type { ScriptedMemory } from './scripted-memory.js';

/** What walks page tables and lists over a {@link ScriptedMemory}. */
export const SCRIPTED: Engine = {
  sampler: () => {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      'memory that a function of JavaScript reads cannot be sampled: that takes a thread, which cannot call it',
    );
  },
  loader: () => scriptedLoader,
  space: (memory: Memory, root: bigint, levels: number): AddressSpace =>
    new ScriptedAddressSpace(memory as ScriptedMemory, root, levels),
  walker: (space: AddressSpace, plan: Plan, link: number): ListWalker => ({
    walk: (heads, max, into) => (space as ScriptedAddressSpace).lists(plan, heads, link, max, into),
  }),
};
