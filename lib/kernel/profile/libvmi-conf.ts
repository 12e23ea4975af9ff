import { VmiError } from '../../errors.js';
import type { ConfEntry } from '../../libvmi/conf.js';
import { didYouMean } from '../../suggest.js';
import { Struct } from '../types/struct.js';
import { BaseTypes, type Member, type StructType, type TypeRef } from '../types/table.js';
import type { Profile } from './profile.js';

/**
 * Keys of libvmi.conf (libvmi/os/linux/core.c, linux_configure) and the member each one is the
 * offset of.
 */
const MEMBERS: Readonly<Record<string, readonly [struct: string, member: string, type: TypeRef]>> =
  {
    linux_tasks: ['task_struct', 'tasks', plain('struct list_head', 16)],
    linux_mm: ['task_struct', 'mm', plain('struct mm_struct *', 8)],
    linux_pid: ['task_struct', 'pid', plain('pid_t', 4)],
    linux_name: ['task_struct', 'comm', plain('char[16]', 16)],
    linux_pgd: ['mm_struct', 'pgd', plain('pgd_t *', 8)],
  };

function plain(name: string, size: number): TypeRef {
  return { kind: 'int', name, size, signed: false, encoding: 'int' };
}

/**
 * Offsets of one entry as a type table. The entry's System.map is named in `sysmap`; reading it is
 * up to the caller.
 * @param name the guest's; may be left out when there is one entry only
 * @throws {VmiError} `VMI_ATTACH`: no such entry, it is not for Linux, or it has no offsets
 */
export function confProfile(
  entries: readonly ConfEntry[],
  name: string | undefined,
  source = 'libvmi.conf',
): Profile & { readonly sysmap?: string } {
  const entry =
    name === undefined && entries.length === 1
      ? entries[0]
      : entries.find((one) => one.name === name);
  if (entry === undefined) {
    const names = entries.map((one) => one.name);
    const which =
      name === undefined
        ? 'an entry must be named'
        : `no entry '${name}'${didYouMean(name, names)}`;
    throw new VmiError('VMI_ATTACH', `${source}: ${which} (it has ${names.join(', ') || 'none'})`);
  }
  const ostype = entry.values.get('ostype') ?? entry.values.get('os_type');
  if (ostype !== undefined && String(ostype).toLowerCase() !== 'linux') {
    throw new VmiError(
      'VMI_ATTACH',
      `${source}: entry '${entry.name}' is for ${ostype}, not for Linux`,
    );
  }
  const members = new Map<string, Member[]>();
  for (const [key, [struct, member, type]] of Object.entries(MEMBERS)) {
    const value = entry.values.get(key);
    if (value === undefined) continue;
    if (typeof value !== 'bigint' || value > 0xffffn) {
      throw new VmiError(
        'VMI_ATTACH',
        `${source}: ${key} of entry '${entry.name}' is no offset: ${value}`,
      );
    }
    const offset = Number(value);
    const list = members.get(struct) ?? [];
    list.push({ name: member, offset, bitOffset: offset * 8, size: type.size, type });
    members.set(struct, list);
  }
  const sysmap = entry.values.get('sysmap');
  if (members.size === 0 && typeof sysmap !== 'string') {
    throw new VmiError(
      'VMI_ATTACH',
      `${source}: entry '${entry.name}' has neither offsets (linux_tasks, …) nor a sysmap`,
    );
  }
  return {
    source: `${source} (${entry.name})`,
    ...(members.size === 0 ? {} : { types: new ConfTypes(`${source} (${entry.name})`, members) }),
    ...(typeof sysmap === 'string' ? { sysmap } : {}),
  };
}

/** The few members a libvmi.conf names. Sizes of structures are unknown to it. */
class ConfTypes extends BaseTypes {
  readonly source: string;
  readonly #structs = new Map<string, StructType>();

  constructor(source: string, members: ReadonlyMap<string, Member[]>) {
    super();
    this.source = source;
    for (const [name, list] of members) {
      const sorted = list.sort((a, b) => a.offset - b.offset);
      this.#structs.set(name, new Struct(name, 'struct', 0, () => sorted));
    }
  }

  find(name: string): StructType | undefined {
    return this.#structs.get(name.replace(/^struct\s+/, ''));
  }

  findSize(): undefined {
    return undefined;
  }

  names(): Iterable<string> {
    return this.#structs.keys();
  }
}
