import type { Member, StructType } from '../kernel/types/table.js';
import { printable, type Styles } from './printable.js';

/** Unnamed structures are shown inside; a guest's types may claim to nest for ever. */
const MAX_DEPTH = 8;
/** Lines of one structure: `task_struct` has some 300. */
const MAX_LINES = 2000;

/** A structure as C, each member with its offset. */
export function structText(struct: StructType, styles: Styles): string[] {
  const lines = [
    `${styles.bold(`${struct.kind} ${printable(struct.name)}`)} { ${styles.dim(`// ${struct.size} bytes`)}`,
  ];
  members(struct.members, 0, 1, lines, styles);
  if (lines.length > MAX_LINES) {
    lines.length = MAX_LINES;
    lines.push('  …');
  }
  lines.push('}');
  return lines;
}

function members(
  all: readonly Member[],
  base: number,
  depth: number,
  lines: string[],
  styles: Styles,
): void {
  const indent = '  '.repeat(depth);
  for (const member of all) {
    if (lines.length > MAX_LINES) return;
    const offset = base + member.offset;
    const at = styles.dim(`+${String(offset).padEnd(6)}`);
    const { type } = member;
    if (
      member.name === '' &&
      (type.kind === 'struct' || type.kind === 'union') &&
      depth < MAX_DEPTH
    ) {
      lines.push(`${at}${indent}${type.kind} {`);
      members(type.struct.members, offset, depth + 1, lines, styles);
      lines.push(`${' '.repeat(7)}${indent}}`);
    } else {
      lines.push(`${at}${indent}${printable(declaration(member))}`);
    }
  }
}

/** `char comm[16]`, `struct mm_struct *mm`, `unsigned int flags : 3`. */
function declaration({ name, type, bitSize }: Member): string {
  const bits = bitSize === undefined ? '' : ` : ${bitSize}`;
  const array = /^(.*?)((?:\[\d*\])+)$/.exec(type.name);
  if (array !== null) return `${array[1]} ${name}${array[2]}${bits}`;
  return `${type.name}${type.name.endsWith('*') ? '' : ' '}${name}${bits}`;
}
