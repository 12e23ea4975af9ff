import { parseAddress } from '../../address.js';
import { VmiError } from '../../errors.js';
import { printable } from '../../text/printable.js';
import { absentText } from './absent.js';
import type { Absent, ProcessView } from './process-view.js';

const HELP = [
  'monitor absent        pages that could not be read so far, and why',
  'monitor why ADDRESS   why an address cannot be read',
  'monitor maps          the parts of the address space, as /proc/PID/maps',
  'monitor threads       its threads, and whose registers are known',
];

/** Answers what is typed behind `monitor` in gdb, a line or more. */
export function monitor(line: string, view: ProcessView, absent: Iterable<Absent>): string {
  const [command = '', word] = line.trim().split(/\s+/);
  switch (command) {
    case 'absent':
      return printableList(Array.from(absent, absentText), 'every page so far was there');
    case 'why':
      return printableList([why(view, word)], '');
    case 'maps':
      return printableList(
        Array.from(
          view.areas(),
          ({ start, end, flags, offset, name }) =>
            `${start.toString(16)}-${end.toString(16)} ${flags} ${offset.toString(16).padStart(8, '0')} ${name}`,
        ),
        '',
      );
    case 'threads':
      return printableList(
        view.threads().map((tid) => {
          const found = view.registers(tid);
          return `${tid} ${view.thread(tid).comm}: ${'why' in found ? found.why : 'registers known'}`;
        }),
        'it has no thread any more',
      );
    default:
      return HELP.join('\n');
  }
}

function why(view: ProcessView, word: string | undefined): string {
  let address: bigint;
  try {
    address = parseAddress(word ?? '');
  } catch (error) {
    return (error as Error).message;
  }
  try {
    const found = view.absent(address);
    return found.state === 'present' ? `${word} is in memory` : absentText(found);
  } catch (error) {
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return error.message;
    throw error;
  }
}

function printableList(lines: readonly string[], none: string): string {
  return lines.length === 0 ? none : lines.map(printable).join('\n');
}
