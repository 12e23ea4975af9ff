import { CorruptError } from '../../errors.js';
import { type Checked, type Doubt, farMembers, LayoutCase } from './case.js';
import { cpuFeatures, currentTasks, loadedMms, wallClock } from './cpu-proofs.js';
import { levels, pidTree, structPids, threadLists } from './pid-proofs.js';
import {
  activeMms,
  credentials,
  exitStates,
  flags,
  list,
  mms,
  parents,
  pids,
  sharedPlaces,
  startTimes,
  states,
  tgids,
} from './task-proofs.js';

/**
 * In this order, since each takes for granted what those before it have shown: a doubt names the
 * first member that is wrong, not one that is read by way of it.
 */
const PROOFS: readonly ((of: LayoutCase) => Doubt | undefined)[] = [
  farMembers,
  list,
  sharedPlaces,
  pids,
  mms,
  activeMms,
  flags,
  structPids,
  threadLists,
  tgids,
  levels,
  pidTree,
  states,
  exitStates,
  startTimes,
  parents,
  credentials,
  loadedMms,
  currentTasks,
  cpuFeatures,
  wallClock,
];

/**
 * Rest on every single task, or on a CPU or two, which may have come or gone while an image was
 * copied from a guest that ran: there they count only against what somebody else says of the guest.
 */
const OF_ONE_MOMENT: ReadonlySet<(of: LayoutCase) => Doubt | undefined> = new Set([
  startTimes,
  loadedMms,
  currentTasks,
]);

/** Times that a running guest is looked at before what it shows counts against a layout. */
const LOOKS = 3;

/**
 * Holds the offsets by which tasks are read against the tasks that are there: some fifty of them
 * and what they lead to. An offset that is wrong by a word reads another member, whose values do
 * not have the order, the uniqueness or the way back that the right one's have.
 *
 * @param strict whether what the guest's tasks do not decide counts as wrong
 * @returns the members that cannot be where the types have them, and why; `undefined` when all fit
 */
export function doubtLayout(checked: Checked, strict: boolean): Doubt | undefined {
  let found: Doubt | undefined;
  const copied = !strict && !checked.memory.physical.live;
  const proofs = copied ? PROOFS.filter((proof) => !OF_ONE_MOMENT.has(proof)) : PROOFS;
  for (let look = 0; look < LOOKS; look++) {
    const of = new LayoutCase(checked, strict);
    found = undefined;
    for (const proof of proofs) {
      found = proof(of);
      if (found !== undefined) break;
    }
    if (found === undefined || !checked.memory.physical.live) break;
  }
  return found;
}

/**
 * The same, as an error.
 * @throws {CorruptError} with the members that cannot be where the types have them
 */
export function proveLayout(checked: Checked, strict: boolean): void {
  const found = doubtLayout(checked, strict);
  if (found === undefined) return;
  const task = checked.symbols.address('init_task');
  throw new CorruptError(
    `the guest's tasks contradict ${checked.types.source}: ${found.why}`,
    task,
  );
}
