import type {
  AddressSpace,
  ListWalker,
  Memory,
  NativeLoader,
  NativeSamplerOptions,
  Plan,
  Sampler,
} from '../../types/addon.js';
import { addon } from '../addon.js';

/**
 * What works on a memory: walks page tables and lists, and loads single words. Native code where
 * the addon has the memory; TypeScript where JavaScript gives its bytes.
 */
export interface Engine {
  space(memory: Memory, root: bigint, levels: number): AddressSpace;
  walker(space: AddressSpace, plan: Plan, link: number): ListWalker;
  /** Starts a thread that looks at what the guest's CPUs run. */
  sampler(memory: Memory, options: NativeSamplerOptions): Sampler;
  loader(): NativeLoader;
}

/** The addon. */
export const NATIVE: Engine = {
  space: (memory, root, levels) => new (addon().AddressSpace)(memory, root, levels),
  walker: (space, plan, link) => new (addon().ListWalker)(space, plan, link),
  sampler: (memory, options) => new (addon().Sampler)(memory, options),
  loader: () => addon().loader(),
};
