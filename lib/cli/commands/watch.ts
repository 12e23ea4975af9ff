import type { Guest, ReportedSwitch, Switch } from '../../index.js';
import { switchHeadings, switchLine, taskEventHeadings, taskEventLine } from '../../text/switch.js';
import { onlyOne, parsePid, UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, type Invocation, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { parseCpus, parseRate, parseSeconds, stopping, watchSwitches } from '../watching.js';

export const watch: Command = {
  name: 'watch',
  summary: 'what each CPU runs, as it switches; or tasks as they come and go',
  operands: [TARGET],
  options: {
    tasks: { summary: 'births, execs and exits instead of switches' },
    pid: { value: 'PID', many: true, summary: 'only switches to or from this task or process' },
    cpu: { value: 'CPU', many: true, summary: 'only this CPU' },
    trap: {
      summary: "stop the guest at every switch of --pid, by QEMU's debug stub: none is missed",
    },
    reported: {
      summary: 'switches of address spaces as the hypervisor reports them: libvmi on Xen',
    },
    rate: {
      value: 'HZ',
      summary: "looks a second, or 'full'; default: what 5 % of a core allows",
    },
    seconds: { value: 'N', summary: 'end after so many seconds; default: at Ctrl-C' },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    'MISSED is how many switches of that CPU nobody saw since the line before of the same CPU, by the count that the kernel itself keeps: what is not seen is counted. BEFORE is the task that ran before, where none was missed.',
    'CR3 is what the CPU has loaded; a kernel thread and an idle CPU run on what the task before them left.',
    'With --tasks, LOST counts the tasks that were born and gone between two looks. With --trap up to four threads are watched: each switch stops the guest for as long as it takes to read a few words. However it ends, the guest runs on.',
    'With --reported each write to CR3 traps in the hypervisor: (kernel) is its own page table, on which idle CPUs and kernel threads run, (gone) a process that is there no more, MISSED is ? where reports were lost.',
  ],
  examples: [
    'vmi watch qemu:4242',
    'vmi watch qemu:4242 --pid 812 --json',
    'vmi watch qemu:4242 --pid 812 --trap --seconds 5',
    'vmi watch qemu:4242 --tasks',
  ],
  run(invocation) {
    onlyOne(invocation, 'tasks', 'trap', 'reported');
    for (const mode of ['tasks', 'trap', 'reported']) {
      if (!invocation.has(mode)) continue;
      if (invocation.values('cpu').length > 0)
        throw new UsageError(`--${mode} and --cpu do not go together`);
      onlyOne(invocation, mode, 'rate');
    }
    const pids = invocation.values('pid').map((text) => parsePid(text, '--pid'));
    if (invocation.has('tasks') && pids.length > 0)
      throw new UsageError('--tasks and --pid do not go together');
    if (invocation.has('trap') && (pids.length < 1 || pids.length > 4))
      throw new UsageError('--trap takes one to four --pid');
    const seconds = parseSeconds(invocation.value('seconds'));
    const rate = parseRate(invocation.value('rate'));
    const cpus = parseCpus(invocation.values('cpu'));
    const chosen = pids.length === 0 ? undefined : pids;
    return invocation.withGuest(async (guest) => {
      using stop = stopping(invocation, seconds);
      try {
        if (invocation.has('tasks')) await showTasks(guest, invocation, stop.signal);
        else if (invocation.has('trap')) await showTrapped(guest, invocation, pids, stop.signal);
        else if (invocation.has('reported'))
          await showReported(guest, invocation, { pids: chosen, signal: stop.signal });
        else {
          await showSampled(guest, invocation, { pids: chosen, rate, cpus, signal: stop.signal });
        }
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'VMI_ABORTED') throw error;
      }
      return EXIT.done;
    });
  },
};

async function showSampled(
  guest: Guest,
  invocation: Invocation,
  options: Parameters<Guest['watchSwitches']>[0],
): Promise<void> {
  const { out } = invocation;
  await using stream = watchSwitches(guest, options);
  for (const limit of stream.limits) out.note(limit);
  let shown = 0;
  try {
    shown = await showSwitches(stream, invocation, (count) => {
      shown = count;
    });
  } finally {
    const { seen, rate } = stream.statistics;
    const pace = Number.isFinite(rate) ? `${Math.round(rate)} looks a second` : 'full speed';
    out.note(`${shown} shown, ${seen} seen, ${stream.missed} missed, at ${pace}`);
  }
}

async function showTrapped(
  guest: Guest,
  invocation: Invocation,
  pids: readonly number[],
  signal: AbortSignal,
): Promise<void> {
  await using stream = guest.trapSwitches({ pids, signal });
  await showSwitches(stream, invocation, () => {});
}

async function showReported(
  guest: Guest,
  invocation: Invocation,
  options: { readonly pids: readonly number[] | undefined; readonly signal: AbortSignal },
): Promise<void> {
  await using stream = guest.watchSwitches({ by: 'reported', ...options });
  let shown = 0;
  try {
    await showSwitches(stream, invocation, (count) => {
      shown = count;
    });
  } finally {
    invocation.out.note(`${shown} shown, ${stream.dropped} dropped`);
  }
}

/** @param told of the count after each line, since an abort ends this by an error */
async function showSwitches(
  stream: AsyncIterable<Switch | ReportedSwitch>,
  { out, has, terminal }: Invocation,
  told: (count: number) => void,
): Promise<number> {
  const { reportedSwitchJson, switchJson } = await import('../../index.js');
  const width = () => terminal?.output.columns;
  let start: bigint | undefined;
  let count = 0;
  for await (const event of stream) {
    // Not sooner: what keeps a stream from beginning is told by its first switch.
    if (start === undefined && !has('json')) out.line(out.styles.bold(switchHeadings(width())));
    start ??= event.time;
    if (has('json')) out.json([isReported(event) ? reportedSwitchJson(event) : switchJson(event)]);
    else out.line(switchLine(event, start, width()));
    told(++count);
    await out.drained();
  }
  return count;
}

function isReported(event: Switch | ReportedSwitch): event is ReportedSwitch {
  return event.by === 'reported';
}

async function showTasks(
  guest: Guest,
  { out, has, terminal }: Invocation,
  signal: AbortSignal,
): Promise<void> {
  const { taskEventJson } = await import('../../index.js');
  const width = () => terminal?.output.columns;
  const start = process.hrtime.bigint();
  await using stream = guest.watchTasks({ signal });
  if (!has('json')) out.line(out.styles.bold(taskEventHeadings(width())));
  for await (const event of stream) {
    if (has('json')) out.json([taskEventJson(event)]);
    else out.line(taskEventLine(event, start, width()));
    await out.drained();
  }
}
