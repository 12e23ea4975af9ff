import { hex, VmiError } from '../../errors.js';
import type { Guest, Stack, Task } from '../../index.js';
import { flameGraph } from '../../text/flame.js';
import { frameText } from '../../text/frame.js';
import { printable } from '../../text/printable.js';
import { onlyOne, parsePid } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { answerEachLater } from '../each.js';
import { EXIT } from '../exit-code.js';
import type { Output } from '../output.js';

/** A task's stack, or why it has none. */
type Found = { readonly task: Task; readonly stack?: Stack; readonly why?: string };

export const stacks: Command = {
  name: 'stacks',
  summary: "kernel stacks of tasks, by the kernel's own tables",
  operands: [
    TARGET,
    { name: 'PID', many: true, optional: true, summary: 'PID or TID; every thread when left out' },
  ],
  options: {
    folded: {
      summary: 'one line for each different stack with its number, as flame graphs take it',
    },
    html: { summary: 'a flame graph of all stacks, as an HTML page' },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    "Where a task that runs is, its CPU's registers say, if the source has them. A frame after '?' was guessed by a frame pointer, where the kernel's tables say nothing of it.",
  ],
  examples: [
    'vmi stacks qemu:4242 1',
    'vmi stacks qemu:4242 --html > stacks.html',
    'vmi stacks qemu:4242 --folded | flamegraph.pl > stacks.svg',
  ],
  run(invocation) {
    const { operands, has, out, withGuest } = invocation;
    onlyOne(invocation, 'folded', 'html', 'json');
    const pids = operands.slice(1).map((text) => parsePid(text));
    return withGuest(async (guest) => {
      const found: Found[] = [];
      const code =
        pids.length === 0
          ? await everyone(guest, found)
          : await answerEachLater(out, pids, async (pid) => {
              found.push({ task: guest.task(pid), stack: await guest.stack(pid) });
            });
      if (has('json')) out.json(found.map(toJson));
      else if (has('folded')) out.lines(folded(found));
      else if (has('html')) {
        out.text(flameGraph(`Kernel stacks of ${guest.target}`, counted(found).values()));
      } else print(out, found);
      return code;
    });
  },
};

/** Of all tasks, those without a stack are answers as well. */
async function everyone(guest: Guest, found: Found[]): Promise<number> {
  for (const task of guest.tasks({ threads: true })) {
    try {
      found.push({ task, stack: await stackOf(guest, task) });
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      found.push({ task, why: error.message });
    }
  }
  return EXIT.done;
}

/** Idle tasks have no PID that names one: of those the registers of no task are asked. */
function stackOf(guest: Guest, task: Task): Stack | Promise<Stack> {
  const runs = task.pid !== 0 && guest.cpus().some(({ task: { pid } }) => pid === task.pid);
  return runs && guest.capabilities.registers ? guest.stack(task.pid) : task.stack();
}

function print(out: Output, found: readonly Found[]): void {
  for (const { task, stack, why } of found) {
    const { vcpu } = stack ?? {};
    const where = vcpu === undefined ? '' : ` on vCPU ${vcpu}`;
    const mode = where !== '' && stack?.length === 0 && !stack.incomplete ? ', in user mode' : '';
    out.line(out.styles.bold(`${task.pid} ${task.comm}${where}${mode}`));
    for (const frame of stack ?? []) out.line(`  ${printable(frameText(frame))}`);
    const end = why ?? stack?.incomplete;
    if (end !== undefined) out.line(out.styles.dim(`  (${printable(end)})`));
  }
}

/** Stacks that are alike, with their number: name of the task, then the outermost frame. */
function counted(found: readonly Found[]): Map<string, { frames: string[]; count: number }> {
  const counts = new Map<string, { frames: string[]; count: number }>();
  for (const { task, stack } of found) {
    if (stack === undefined) continue;
    const names = stack.map(({ symbol, address }) => symbol ?? hex(address));
    // A semicolon in a name would be a frame of its own.
    const frames = [task.comm, ...names.reverse()].map((name) =>
      printable(name).replace(/;/g, ':'),
    );
    const line = frames.join(';');
    const known = counts.get(line);
    if (known === undefined) counts.set(line, { frames, count: 1 });
    else known.count++;
  }
  return counts;
}

/** `comm;outermost;…;innermost count`, the most frequent first. */
function folded(found: readonly Found[]): string[] {
  return [...counted(found)]
    .sort(([a, m], [b, n]) => n.count - m.count || (a < b ? -1 : 1))
    .map(([line, { count }]) => `${line} ${count}`);
}

function toJson({ task, stack, why }: Found): unknown {
  const { pid, tgid, comm } = task;
  const frames = stack?.map((frame) => ({ ...frame, address: hex(frame.address) }));
  const incomplete = why ?? stack?.incomplete;
  const { vcpu } = stack ?? {};
  return {
    pid,
    tgid,
    comm,
    frames: frames ?? null,
    ...(vcpu === undefined ? {} : { vcpu }),
    ...(incomplete ? { incomplete } : {}),
  };
}
