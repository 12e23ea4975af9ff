import { hex } from '../../errors.js';
import type { Absent } from './process-view.js';

/** `0x7f… is not in memory: a page of /usr/bin/cat (…) that was never touched; …`. */
export function absentText({ address, state, area }: Absent): string {
  const what = `${hex(address)} is not in memory: `;
  if (area === undefined) return `${what}the process has nothing there`;
  const { name, start, end, flags } = area;
  const page = `${what}a page of ${name || 'memory without a name'} (${hex(start)}-${hex(end)} ${flags}) that `;
  switch (state) {
    case 'swapped':
      return `${page}is swapped out`;
    case 'file':
      return `${page}was never touched; its contents are in the file`;
    case 'present':
      return `${page}is there by now`;
    default:
      return `${page}was never touched`;
  }
}
