import { VmiError } from '../../errors.js';
import type { Guest, Stack, Task } from '../../index.js';
import { frameText } from '../../text/frame.js';
import { printable } from '../../text/printable.js';
import { parsePid } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { answerEach } from '../each.js';
import { EXIT } from '../exit-code.js';
import type { Output } from '../output.js';

/** A task's stack, or why it has none. */
type Found = { readonly task: Task; readonly stack?: Stack; readonly why?: string };

export const stacks: Command = {
  name: 'stacks',
  summary: "kernel stacks of tasks off the CPU, by the kernel's own tables",
  operands: [
    TARGET,
    { name: 'PID', many: true, optional: true, summary: 'PID or TID; every thread when left out' },
  ],
  options: {
    folded: {
      summary: 'one line for each different stack with its number, as flame graphs take it',
    },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    "A task that runs has no stack here: where it is, only its CPU's registers say. A frame after '?' was guessed by a frame pointer, where the kernel's tables say nothing of it.",
  ],
  examples: [
    'vmi stacks qemu:4242 1',
    'vmi stacks qemu:4242 --folded | flamegraph.pl > stacks.svg',
  ],
  run({ operands, has, out, withGuest }) {
    const pids = operands.slice(1).map((text) => parsePid(text));
    return withGuest((guest) => {
      const found: Found[] = [];
      const code =
        pids.length === 0
          ? everyone(guest, found)
          : answerEach(out, pids, (pid) => {
              const task = guest.task(pid);
              found.push({ task, stack: task.stack() });
            });
      if (has('json')) out.json(found.map(toJson));
      else if (has('folded')) out.lines(folded(found));
      else print(out, found);
      return code;
    });
  },
};

/** Of all tasks, those without a stack are answers as well. */
function everyone(guest: Guest, found: Found[]): number {
  for (const task of guest.tasks({ threads: true })) {
    try {
      found.push({ task, stack: task.stack() });
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      found.push({ task, why: error.message });
    }
  }
  return EXIT.done;
}

function print(out: Output, found: readonly Found[]): void {
  for (const { task, stack, why } of found) {
    out.line(out.styles.bold(`${task.pid} ${task.comm}`));
    for (const frame of stack ?? []) out.line(`  ${printable(frameText(frame))}`);
    const end = why ?? stack?.incomplete;
    if (end !== undefined) out.line(out.styles.dim(`  (${printable(end)})`));
  }
}

/** `comm;outermost;…;innermost count`, the most frequent first. */
function folded(found: readonly Found[]): string[] {
  const counts = new Map<string, number>();
  for (const { task, stack } of found) {
    if (stack === undefined) continue;
    const names = stack.map(({ symbol, address }) => symbol ?? `0x${address.toString(16)}`);
    // A semicolon in a name would be a frame of its own.
    const parts = [task.comm, ...names.reverse()].map((name) => printable(name).replace(/;/g, ':'));
    const line = parts.join(';');
    counts.set(line, (counts.get(line) ?? 0) + 1);
  }
  return [...counts]
    .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    .map(([line, count]) => `${line} ${count}`);
}

function toJson({ task, stack, why }: Found): unknown {
  const { pid, tgid, comm } = task;
  const frames = stack?.map((frame) => ({ ...frame, address: `0x${frame.address.toString(16)}` }));
  const incomplete = why ?? stack?.incomplete;
  return { pid, tgid, comm, frames: frames ?? null, ...(incomplete ? { incomplete } : {}) };
}
