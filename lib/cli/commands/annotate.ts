import { setTimeout as sleep } from 'node:timers/promises';
import { hex } from '../../errors.js';
import type { Cr3Index, Guest } from '../../index.js';
import { annotated, type FoundCr3, numbersOf } from '../../text/annotate.js';
import { printable } from '../../text/printable.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

/** Milliseconds between two looks at the guest's tasks. */
const INTERVAL = 20;

export const annotate: Command = {
  name: 'annotate',
  summary: 'name every CR3 value in a text, line by line, from standard input',
  operands: [TARGET],
  options: { ...JSON_OPTION, ...ATTACH_OPTIONS },
  details: [
    'Behind each value stands whose it is: "[412 make]", "[kernel]". A value counts with 0x, with zeroes in front, or behind "cr3"; PCID and the other bits are ignored. Numbers that are nobody\'s stay as they are.',
    'The guest is looked at before and as lines come, and tasks that exit meanwhile are remembered: "[412 make, gone]". With a "?" it is not certain that the task had it when the line came: page tables are used again. A log that is older than this command is named by who has each value now.',
  ],
  examples: ['vmi annotate qemu:4242 < cr3.log', 'tail -f cr3.log | vmi annotate qemu:4242 --json'],
  run({ has, out, input, withGuest }) {
    return withGuest(async (guest) => {
      await using index = guest.cr3Index({ interval: INTERVAL });
      let looked = performance.now();
      let rest = '';
      const print = async (lines: readonly string[], arrived: number) => {
        const numbers = lines.map(numbersOf);
        if (numbers.some((found) => found.length > 0)) {
          // A look at the tasks for each line would take longer than the lines.
          await sleep(Math.max(0, looked + INTERVAL - performance.now()));
          index.look();
          looked = performance.now();
        }
        const found = numbers.map((line) => namesOf(guest, index, line, arrived));
        if (has('json')) out.json(lines.map((line, i) => toJson(line, found[i]!)));
        else out.lines(lines.map((line, i) => safe(annotated(line, found[i]!))));
      };
      for await (const chunk of input) {
        const arrived = performance.timeOrigin + performance.now();
        const lines = (rest + String(chunk)).split('\n');
        rest = lines.pop()!;
        if (lines.length > 0) await print(lines, arrived);
      }
      if (rest !== '') await print([rest], performance.timeOrigin + performance.now());
      return EXIT.done;
    });
  },
};

/** A line as it is, but for what a terminal acts on; tabs stay. */
function safe(line: string): string {
  return line.split('\t').map(printable).join('\t');
}

function namesOf(
  guest: Guest,
  index: Cr3Index,
  numbers: ReturnType<typeof numbersOf>,
  at: number,
): FoundCr3[] {
  return numbers.flatMap(({ value, end }) => {
    // The kernel's own page table is at no address that another number has by chance but 0.
    if (guest.cr3Base(value) === 0n) return [];
    const name = index.name(value, at);
    return name.kernel || name.owners.length > 0 ? [{ end, name }] : [];
  });
}

function toJson(line: string, found: readonly FoundCr3[]) {
  const cr3s = found.map(({ name: { value, cr3, kernel, certain, owners } }) => ({
    value: hex(value),
    cr3: hex(cr3),
    kernel,
    certain,
    owners: owners.map(({ pid, tgid, comm, startTime, gone, first, last }) => ({
      ...{ pid, tgid, comm, startTime: String(startTime), gone },
      ...{ first: Math.round(first), last: Math.round(last) },
    })),
  }));
  return { line, cr3s };
}
