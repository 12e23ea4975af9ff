import { hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { PLAIN_FORMAT } from '../kernel/profile/plain.js';
import { linkedSymbols } from './linked.js';

/** The structures that this package reads. */
const STRUCTS = [
  'cpuinfo_x86',
  'cred',
  'hlist_node',
  'idr',
  'list_head',
  'mm_struct',
  'pcpu_hot',
  'pid',
  'pid_namespace',
  'signal_struct',
  'task_struct',
  'timekeeper',
  'tk_data',
  'tlb_state',
  'upid',
  'xa_node',
  'xarray',
] as const;

/**
 * What was found, for scripts: facts of the kernel and of this boot, the members of the structures
 * that this package reads, every symbol at the address it was linked to. One object.
 */
export function* exportJson(kernel: Kernel): Iterable<string> {
  const { types } = kernel;
  const facts = {
    format: PLAIN_FORMAT,
    release: kernel.release,
    banner: kernel.banner,
    buildId: kernel.buildId ?? null,
    boot: {
      levels: kernel.levels,
      pti: kernel.pti,
      kaslr: kernel.kaslr === undefined ? null : hex(kernel.kaslr),
      cr3: hex(kernel.root),
      pageOffset: hex(kernel.pageOffset),
    },
  };
  yield `${JSON.stringify(facts).slice(0, -1)},\n"types":{`;
  let separator = '\n';
  for (const name of STRUCTS) {
    const members = memberOffsets(kernel, name);
    if (members === undefined) continue;
    // Of a structure whose members were inferred the size is not known, and left out.
    const size = types.findSize(name);
    yield `${separator}${JSON.stringify(name)}:${JSON.stringify({ size, members })}`;
    separator = ',\n';
  }
  yield '},\n"symbols":[';
  separator = '\n';
  for (const { name, address, type } of linkedSymbols(kernel)) {
    yield `${separator}${JSON.stringify({ name, address: hex(address), type })}`;
    separator = ',\n';
  }
  yield ']}\n';
}

/**
 * Members by name, those of unnamed structures included; `undefined` when this kernel has no such
 * structure.
 */
function memberOffsets({ types }: Kernel, name: string) {
  const struct = types.find(name);
  if (struct === undefined) return undefined;
  const members: Record<string, { offset: number; size: number; type: string }> =
    Object.create(null);
  const collect = (of: typeof struct, bits: number, depth: number): void => {
    for (const member of of.members) {
      const bitOffset = bits + member.bitOffset;
      if (member.name !== '') {
        if (member.bitSize === undefined)
          members[member.name] ??= {
            offset: bitOffset / 8,
            size: member.size,
            type: member.type.name,
          };
      } else if ((member.type.kind === 'struct' || member.type.kind === 'union') && depth < 16) {
        collect(member.type.struct, bitOffset, depth + 1);
      }
    }
  };
  collect(struct, 0, 0);
  return members;
}
