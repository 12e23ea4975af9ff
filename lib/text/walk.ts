import { hex } from '../errors.js';
import type { WalkResult, WalkStep } from '../memory/virtual-memory.js';
import { bytesText, type Styles } from './printable.js';
import { table } from './table.js';

/**
 * Bits of a paging-structure entry by name. SDM vol. 3A, tables 4-15 to 4-20; names as crash's vtop
 * prints them.
 */
const FLAGS: readonly (readonly [bit: bigint, name: string])[] = [
  [0n, 'PRESENT'],
  [1n, 'RW'],
  [2n, 'USER'],
  [3n, 'PWT'],
  [4n, 'PCD'],
  [5n, 'ACCESSED'],
];
const DIRTY = 6n;
const PSE = 7n;
const GLOBAL = 8n;
const NX = 63n;
/** The PAT bit of an entry that maps a page: bit 7 at the last level, bit 12 above it. */
const PAT_LARGE = 12n;

/**
 * Names of the flags that are set in one entry. Of one that is not present, all bits are the
 * guest's own.
 */
export function entryFlags(step: WalkStep): string[] {
  const { entry } = step;
  const has = (bit: bigint) => ((entry >> bit) & 1n) === 1n;
  if (!step.present) return [];
  const flags = FLAGS.filter(([bit]) => has(bit)).map(([, name]) => name);
  if (step.leaf) {
    if (has(DIRTY)) flags.push('DIRTY');
    if (step.level !== 'pt') flags.push('PSE');
    if (has(step.level === 'pt' ? PSE : PAT_LARGE)) flags.push('PAT');
    if (has(GLOBAL)) flags.push('GLOBAL');
  }
  if (has(NX)) flags.push('NX');
  return flags;
}

/**
 * Every level of a page walk as lines.
 * @param own of a PV guest of Xen: what it calls the physical address itself; the walk's is then
 *   the machine's
 */
export function walkText(
  walk: WalkResult,
  styles?: Styles,
  own?: { readonly pseudoPhysical: bigint | undefined },
): string[] {
  const name = own === undefined ? 'physical' : 'machine';
  const end =
    walk.physical === undefined
      ? { level: name, entryAddress: 'not mapped', entry: '', flags: '' }
      : {
          level: name,
          entryAddress: hex(walk.physical),
          entry: `${bytesText(walk.pageSize!)} page`,
          flags: '',
        };
  const rows = [
    { level: 'virtual', entryAddress: hex(walk.address), entry: '', flags: '' },
    { level: 'cr3', entryAddress: hex(walk.root), entry: '', flags: '' },
    ...walk.steps.map((step) => ({
      level: step.level,
      entryAddress: hex(step.entryAddress),
      entry: hex(step.entry),
      flags: step.present ? entryFlags(step).join('|') : 'not present',
    })),
    end,
    ...(own === undefined
      ? []
      : [
          {
            level: 'pseudo-physical',
            entryAddress:
              own.pseudoPhysical === undefined ? "not the guest's" : hex(own.pseudoPhysical),
            entry: '',
            flags: '',
          },
        ]),
  ];
  return table(
    rows,
    [
      { heading: 'LEVEL', cell: (row) => row.level },
      { heading: 'AT', cell: (row) => row.entryAddress },
      { heading: 'ENTRY', cell: (row) => row.entry },
      { heading: 'FLAGS', cell: (row) => row.flags },
    ],
    styles === undefined ? {} : { styles },
  );
}

/** Why a walk of 4 or 5 levels ended without a page; `undefined` when it found one. */
export function whyNotMapped(walk: WalkResult, levels: 4 | 5): string | undefined {
  if (walk.physical !== undefined) return undefined;
  const last = walk.steps.at(-1);
  // SDM vol. 1, 3.3.7.1: the bits above those that are translated repeat the highest of them.
  const bits = 12 + 9 * levels;
  if (BigInt.asUintN(64, BigInt.asIntN(bits, walk.address)) !== walk.address) {
    return `${hex(walk.address)} is not mapped: no address of ${bits} bits looks like that (it is not canonical)`;
  }
  const why =
    last === undefined
      ? 'the page table is not in guest RAM'
      : last.present
        ? `the table that the ${last.level} entry points to is not in guest RAM`
        : `page not present at ${last.level}`;
  return `${hex(walk.address)} is not mapped (cr3 ${hex(walk.root)}): ${why}`;
}
