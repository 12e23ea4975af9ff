import { hex } from '../../errors.js';
import type { Slice } from './slices.js';

/** What a trace says of itself. */
export interface TraceHeader {
  /** The guest: its target and its kernel. */
  readonly name: string;
  readonly cpus: readonly number[];
}

/** Turns slices into the bytes of a file, in order. */
export interface TraceWriter {
  /** What the file begins with. */
  begin(header: TraceHeader): string | Uint8Array;
  /** A slice; in the order of its CPU's time. */
  slice(slice: Slice): string | Uint8Array;
  /** What the file ends with. */
  end(): string | Uint8Array;
}

/** What a slice is called: as ps(1) shows its task. */
export function sliceName({ task, missed }: Slice): string {
  if (task === undefined) return `${missed} missed`;
  if (task.idle) return 'idle';
  return task.kthread ? `[${task.comm}]` : task.comm;
}

/** What is to be known of a slice besides its name and times. */
export function sliceFacts(slice: Slice): Record<string, string | number> {
  const { task, cr3, missed } = slice;
  if (task === undefined) return { missed };
  return {
    pid: task.pid,
    tgid: task.tgid,
    cr3: cr3 === null ? '-' : hex(cr3),
    space: task.mm === null ? 'borrowed' : 'own',
    begin: slice.exact ? 'exact' : 'sampled',
  };
}
