import { inferCpus } from './infer-cpus.js';
import { inferPids, inferPidTree, inferStructPid, inferThreads } from './infer-ids.js';
import { inferList } from './infer-list.js';
import { inferCredentials, inferParents, inferStartTime } from './infer-people.js';
import { inferFlags, inferSpaces } from './infer-spaces.js';
import { inferExitState, inferState } from './infer-states.js';
import { type Inferable, Inference } from './inference.js';

/** In this order: each step searches by what those before it have placed. */
const STEPS: readonly ((of: Inference) => void)[] = [
  inferList,
  inferThreads,
  inferPids,
  inferStructPid,
  inferPidTree,
  inferSpaces,
  inferFlags,
  inferParents,
  inferCredentials,
  inferStartTime,
  inferState,
  inferExitState,
  inferCpus,
];

/**
 * Finds out how a kernel lays out what tasks are read by, from the guest's own memory: by what the
 * values of each member must be over all tasks. No version is compared, and only where two members
 * have the same values the order in which the kernel declares them is taken into account.
 */
export function inferLayout(from: Inferable): Inference {
  const inference = new Inference(from);
  for (const step of STEPS) {
    step(inference);
    // Without tasks there is nothing to go by.
    if (inference.tasks.length === 0) break;
  }
  return inference;
}
