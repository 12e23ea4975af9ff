/** Writes BTF by hand: Documentation/bpf/btf.rst. */

export interface BuiltMember {
  readonly name: string;
  readonly type: number;
  readonly bits: number;
  readonly bitSize?: number;
}

/** Types are numbered from 1 in the order they are added. */
export class BtfBuilder {
  readonly #types: Buffer[] = [];
  #strings = Buffer.from('\0');
  #count = 0;

  string(text: string): number {
    if (text === '') return 0;
    const known = this.#strings.indexOf(`\0${text}\0`);
    if (known >= 0) return known + 1;
    const at = this.#strings.length;
    this.#strings = Buffer.concat([this.#strings, Buffer.from(`${text}\0`)]);
    return at;
  }

  /** A type of any kind: info and third word as given, then more words. */
  raw(
    name: string | number,
    kind: number,
    vlen: number,
    third: number,
    extra: readonly number[] = [],
    flag = false,
  ): number {
    const words = [
      typeof name === 'number' ? name : this.string(name),
      ((flag ? 0x8000_0000 : 0) | (kind << 24) | vlen) >>> 0,
      third,
      ...extra,
    ];
    const part = Buffer.alloc(words.length * 4);
    words.forEach((word, i) => {
      part.writeUInt32LE(word >>> 0, i * 4);
    });
    this.#types.push(part);
    return ++this.#count;
  }

  int(name: string, size: number, encoding = 0, bits = size * 8): number {
    return this.raw(name, 1, 0, size, [(encoding << 24) | bits]);
  }
  pointer(to: number): number {
    return this.raw('', 2, 0, to);
  }
  array(element: number, count: number): number {
    return this.raw('', 3, 0, 0, [element, element, count]);
  }
  struct(name: string, size: number, members: readonly BuiltMember[], kind = 4): number {
    const flag = members.some((member) => member.bitSize !== undefined);
    const words = members.flatMap(({ name, type, bits, bitSize }) => [
      this.string(name),
      type,
      flag ? ((bitSize ?? 0) << 24) | bits : bits,
    ]);
    return this.raw(name, kind, members.length, size, words, flag);
  }
  union(name: string, size: number, members: readonly BuiltMember[]): number {
    return this.struct(name, size, members, 5);
  }
  enum(name: string, values: Readonly<Record<string, number>>): number {
    const words = Object.entries(values).flatMap(([key, value]) => [this.string(key), value]);
    return this.raw(name, 6, Object.keys(values).length, 4, words);
  }
  typedef(name: string, to: number): number {
    return this.raw(name, 8, 0, to);
  }
  modifier(kind: 9 | 10 | 11 | 18, to: number): number {
    return this.raw(kind === 18 ? 'tag' : '', kind, 0, to);
  }

  build(): Buffer {
    const types = Buffer.concat(this.#types);
    const header = Buffer.alloc(24);
    header.writeUInt16LE(0xeb9f, 0);
    header.writeUInt8(1, 2);
    header.writeUInt32LE(24, 4);
    header.writeUInt32LE(0, 8);
    header.writeUInt32LE(types.length, 12);
    header.writeUInt32LE(types.length, 16);
    header.writeUInt32LE(this.#strings.length, 20);
    return Buffer.concat([header, types, this.#strings]);
  }
}

/** The types that loading a kernel asks for; with `tasks`, those that listing tasks does, too. */
export function kernelBtf(tasks = false): Buffer {
  const b = new BtfBuilder();
  const int = b.int('int', 4, 1);
  const unsigned = b.int('unsigned int', 4);
  const char = b.int('char', 1, 1);
  const long = b.int('unsigned long', 8);
  const comm = b.array(char, 16);
  const pid = b.typedef('pid_t', int);
  const list = b.struct('list_head', 16, [
    { name: 'next', type: 0, bits: 0 },
    { name: 'prev', type: 0, bits: 64 },
  ]);
  const pgd = b.pointer(long);
  const unnamed = b.struct('', 256, [
    { name: 'count', type: long, bits: 0 },
    { name: 'pgd', type: pgd, bits: 120 * 8 },
  ]);
  const mm = b.struct('mm_struct', 1024, [{ name: '', type: unnamed, bits: 0 }]);
  const mmPointer = b.pointer(mm);
  b.struct('task_struct', 4096, [
    { name: 'tasks', type: list, bits: 0x100 * 8 },
    { name: 'mm', type: mmPointer, bits: 0x140 * 8 },
    { name: 'active_mm', type: mmPointer, bits: 0x148 * 8 },
    { name: 'pid', type: pid, bits: 0x160 * 8 },
    { name: 'tgid', type: pid, bits: 0x164 * 8 },
    { name: 'comm', type: comm, bits: 0x200 * 8 },
    ...(tasks ? taskMembers({ int, long, list }) : []),
  ]);
  if (tasks) structsOfTasks(b, { int, long, list });
  const capability = b.array(unsigned, 24);
  b.struct('cpuinfo_x86', 256, [{ name: 'x86_capability', type: capability, bits: 40 * 8 }]);
  b.struct('cpumask', 1024, [{ name: 'bits', type: b.array(long, 128), bits: 0 }]);
  b.struct('timekeeper', 288, [{ name: 'xtime_sec', type: long, bits: 0x70 * 8 }]);
  return b.build();
}

interface Words {
  readonly int: number;
  readonly long: number;
  readonly list: number;
}

/** What a row of the list of tasks is made of besides. */
function taskMembers({ int, long, list }: Words): BuiltMember[] {
  return [
    { name: '__state', type: int, bits: 0x18 * 8 },
    { name: 'flags', type: int, bits: 0x2c * 8 },
    { name: 'exit_state', type: int, bits: 0x150 * 8 },
    { name: 'real_parent', type: long, bits: 0x170 * 8 },
    { name: 'thread_pid', type: long, bits: 0x180 * 8 },
    { name: 'pid_links', type: list, bits: 0x188 * 8 },
    { name: 'thread_node', type: list, bits: 0x1a8 * 8 },
    { name: 'start_time', type: long, bits: 0x1c0 * 8 },
    { name: 'real_cred', type: long, bits: 0x1d0 * 8 },
    { name: 'signal', type: long, bits: 0x220 * 8 },
  ];
}

/** Structures that tasks lead to, and the tree that PIDs are looked up in. */
function structsOfTasks(b: BtfBuilder, { int, long, list }: Words): void {
  b.struct('cred', 176, [{ name: 'uid', type: int, bits: 4 * 8 }]);
  b.struct('signal_struct', 1024, [{ name: 'thread_head', type: list, bits: 16 * 8 }]);
  const upid = b.struct('upid', 16, [
    { name: 'nr', type: int, bits: 0 },
    { name: 'ns', type: long, bits: 8 * 8 },
  ]);
  b.struct('pid', 112, [
    { name: 'level', type: int, bits: 4 * 8 },
    { name: 'tasks', type: b.array(long, 4), bits: 16 * 8 },
    { name: 'numbers', type: b.array(upid, 1), bits: 96 * 8 },
  ]);
  const array = b.struct('xarray', 16, [{ name: 'xa_head', type: long, bits: 8 * 8 }]);
  const idr = b.struct('idr', 24, [{ name: 'idr_rt', type: array, bits: 0 }]);
  b.struct('pid_namespace', 128, [{ name: 'idr', type: idr, bits: 0 }]);
  b.struct('xa_node', 576, [
    { name: 'shift', type: b.int('unsigned char', 1), bits: 0 },
    { name: 'slots', type: b.array(long, 64), bits: 40 * 8 },
  ]);
}
