import type { VmiErrorCode } from '../errors.js';

/** What a script learns from `vmi`'s exit code. */
export const EXIT = {
  done: 0,
  /** The guest's answer is no: no such task, no such symbol, not mapped. */
  no: 1,
  usage: 2,
  /** Cannot attach, or the guest ended. */
  attach: 3,
  /** The guest's memory made an answer impossible. */
  memory: 4,
  /** A bug in this program (EX_SOFTWARE, sysexits.h). */
  bug: 70,
  /** The result cannot be written (EX_IOERR, sysexits.h). */
  output: 74,
  /** Ended by ctrl-C (128 + SIGINT). */
  interrupted: 130,
} as const;

/** The exit codes as `--help` shows them. */
export const EXIT_HELP: readonly (readonly [code: number, meaning: string])[] = [
  [EXIT.done, 'done; or whoever reads the result wanted no more of it'],
  [
    EXIT.no,
    "the guest's answer is no: no such task, symbol or type, nothing mapped or found there, or not to be had of this guest",
  ],
  [EXIT.usage, 'usage: an unknown option, an argument that is no PID or no address'],
  [
    EXIT.attach,
    'cannot attach: no such guest, no right to read it, no Linux in it; or the guest ended',
  ],
  [
    EXIT.memory,
    "the guest's memory made an answer impossible: not readable, or not what a kernel keeps there",
  ],
  [EXIT.bug, 'a bug in vmi, which prints where it is'],
  [EXIT.output, 'the result cannot be written: no space, or no right to that file'],
  [EXIT.interrupted, 'ended by Ctrl-C before there was an answer'],
];

/** The exit code for a failure after the guest was attached. */
export function exitCodeOf(code: VmiErrorCode): number {
  switch (code) {
    case 'VMI_NO_TASK':
    case 'VMI_SYMBOL':
    case 'VMI_TYPE':
    case 'VMI_UNSUPPORTED':
    case 'VMI_READ_ONLY':
      return EXIT.no;
    case 'VMI_ADDON_MISSING':
    case 'VMI_LIBRARY_MISSING':
    case 'VMI_ATTACH':
    case 'VMI_CLOSED':
    case 'VMI_BUSY':
    case 'VMI_CRASHED':
    case 'VMI_CHANGED':
    case 'VMI_EVENTS_TAKEN':
      return EXIT.attach;
    case 'VMI_FAULT':
    case 'VMI_CORRUPT':
      return EXIT.memory;
    case 'VMI_ABORTED':
      return EXIT.interrupted;
  }
}
