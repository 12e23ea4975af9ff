import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest, Usage, UsageMeter } from '../../index.js';
import { type TopSort, topFrame, topRows } from '../../text/top.js';
import { UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, type Invocation, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { Screen } from '../screen.js';
import { parseSeconds, stopping } from '../watching.js';

const SORTS: Readonly<Record<string, TopSort>> = {
  c: 'cpu',
  s: 'switches',
  p: 'pid',
  n: 'name',
};
const KEYS = 'q quit  c/s/p/n sort  t tree  h threads  / filter  ↑↓ scroll';

export const top: Command = {
  name: 'top',
  summary: 'tasks by what they take of the CPUs, in a terminal',
  operands: [TARGET],
  options: {
    every: { value: 'SECONDS', summary: 'seconds between two looks; default 1' },
    sort: {
      value: 'BY',
      values: Object.values(SORTS),
      summary: 'cpu, switches, pid or name; default cpu',
    },
    tree: { summary: 'children below their parents' },
    threads: { short: 't', summary: 'every thread by itself' },
    filter: { value: 'TEXT', summary: 'only tasks with this in their name, or as a PID' },
    once: { summary: 'print one picture, after two looks, and end: for a pipe' },
    ...ATTACH_OPTIONS,
  },
  details: [
    '%CPU is a part of one CPU, by the account that the scheduler of the guest keeps itself; SW/S are switches a second away from the task. A process has the sum of its threads.',
    `Keys: ${KEYS}.`,
  ],
  examples: ['vmi top qemu:4242', 'vmi top qemu:4242 --threads --sort switches'],
  run(invocation) {
    const every = parseSeconds(invocation.value('every'), '--every') ?? 1;
    const sort = parseSort(invocation.value('sort') ?? 'cpu');
    const terminal = invocation.terminal;
    const once = invocation.has('once');
    if (!once && terminal === undefined)
      throw new UsageError('vmi top needs a terminal; --once prints one picture without');
    return invocation.withGuest(async (guest) => {
      const view: Chosen = {
        sort,
        filter: invocation.value('filter') ?? '',
        tree: invocation.has('tree'),
        threads: invocation.has('threads'),
        scroll: 0,
      };
      if (once) await printOnce(guest, invocation, view, every);
      else await new Top(guest, invocation, view, await meterOf(guest)).run(every);
      return EXIT.done;
    });
  },
};

/** What keys change. */
interface Chosen {
  sort: TopSort;
  filter: string;
  tree: boolean;
  threads: boolean;
  scroll: number;
}

function parseSort(text: string): TopSort {
  const found = Object.values(SORTS).find((sort) => sort === text);
  if (found !== undefined) return found;
  throw new UsageError(
    `Expected --sort as one of ${Object.values(SORTS).join(', ')} but received '${text}'`,
  );
}

async function meterOf(guest: Guest): Promise<UsageMeter> {
  const { UsageMeter } = await import('../../index.js');
  return new UsageMeter(guest.kernel, (options) => guest.tasks(options));
}

const titleOf = (guest: Guest) => `${guest.target}  Linux ${guest.kernel.release}`;

async function printOnce(
  guest: Guest,
  { out, env }: Invocation,
  view: Chosen,
  every: number,
): Promise<void> {
  const meter = await meterOf(guest);
  meter.look(view.threads);
  await sleep(every * 1_000);
  const usage = meter.look(view.threads);
  const width = Number(env.COLUMNS) || 80;
  const height = usage.tasks.length + topRows(0) + 3;
  const { lines } = topFrame(titleOf(guest), usage, { ...view, width, height, foot: '' });
  out.lines(lines.filter((line) => line !== ''));
}

/** The full-screen picture of one guest. */
class Top {
  readonly #guest: Guest;
  readonly #invocation: Invocation;
  readonly #view: Chosen;
  readonly #meter: UsageMeter;
  #usage: Usage;
  #screen: Screen | undefined;
  #isAsking = false;
  #count = 0;
  #quit = new AbortController();

  constructor(guest: Guest, invocation: Invocation, view: Chosen, meter: UsageMeter) {
    this.#guest = guest;
    this.#invocation = invocation;
    this.#view = view;
    this.#meter = meter;
    this.#usage = this.#meter.look(view.threads);
  }

  async run(every: number): Promise<void> {
    using stop = stopping(this.#invocation, undefined);
    const signal = AbortSignal.any([stop.signal, this.#quit.signal]);
    using screen = new Screen(
      this.#invocation.terminal!,
      (key) => this.#key(key),
      () => this.#draw(),
    );
    this.#screen = screen;
    while (!signal.aborted) {
      this.#draw();
      await sleep(every * 1_000, undefined, { signal }).catch(() => {});
      if (!signal.aborted) this.#usage = this.#meter.look(this.#view.threads);
    }
  }

  #draw(): void {
    const screen = this.#screen;
    if (screen === undefined) return;
    const { width, height } = screen;
    const foot = this.#isAsking ? `filter: ${this.#view.filter}_` : KEYS;
    const view = { ...this.#view, width, height, foot };
    const { styles } = this.#invocation.out;
    const { lines, count } = topFrame(titleOf(this.#guest), this.#usage, view, styles);
    this.#count = count;
    screen.show(lines);
  }

  #key(key: string): void {
    if (this.#isAsking) this.#ask(key);
    else this.#command(key);
    const most = Math.max(0, this.#count - topRows(this.#screen?.height ?? 0));
    this.#view.scroll = Math.min(Math.max(this.#view.scroll, 0), most);
    this.#draw();
  }

  #ask(key: string): void {
    const view = this.#view;
    if (key === 'enter') this.#isAsking = false;
    else if (key === 'escape') {
      view.filter = '';
      this.#isAsking = false;
    } else if (key === 'backspace') view.filter = view.filter.slice(0, -1);
    else if (key.length === 1 && key >= ' ') view.filter += key;
    view.scroll = 0;
  }

  #command(key: string): void {
    const view = this.#view;
    const page = topRows(this.#screen?.height ?? 0);
    const moves: Record<string, number> = { up: -1, down: 1, pageup: -page, pagedown: page };
    view.scroll += moves[key] ?? 0;
    view.sort = SORTS[key] ?? view.sort;
    if (key === 'q') this.#quit.abort();
    if (key === 't') view.tree = !view.tree;
    if (key === '/') this.#isAsking = true;
    if (key !== 'h') return;
    view.threads = !view.threads;
    this.#usage = this.#meter.look(view.threads);
  }
}
