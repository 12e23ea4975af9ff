import { hex } from '../../errors.js';
import type { Guest, Reference, StructObject, StructType } from '../../index.js';
import { printable } from '../../text/printable.js';
import { structText } from '../../text/struct.js';
import { parsePlace, UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import type { Output } from '../output.js';

export const type: Command = {
  name: 'type',
  summary: 'a C type of the kernel, or the value of that type at an address',
  operands: [
    TARGET,
    { name: 'TYPE[.MEMBER]', summary: "task_struct, 'struct page *', task_struct.signal, …" },
    {
      name: 'ADDRESS',
      optional: true,
      summary: 'where the value is: an address, or a symbol with or without +OFFSET',
    },
  ],
  options: {
    hex: { summary: 'print integers in base 16' },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    'Where a part of the value cannot be read, what can be is printed, and the exit code is 4.',
  ],
  examples: [
    'vmi type qemu:4242 list_head',
    'vmi type qemu:4242 task_struct.mm',
    'vmi type qemu:4242 task_struct init_task',
  ],
  run({ operands, has, out, withGuest }) {
    const [, name, address] = operands;
    const [base, member] = split(name!);
    const place = address === undefined ? undefined : parsePlace(address);
    const format = has('hex') ? ({ base: 16 } as const) : {};
    return withGuest(async (guest) => {
      const api = await import('../../index.js');
      const isStruct: IsStruct = (value) => value instanceof api.StructObject;
      if (place === undefined) layout(guest, base, member, has('json'), out);
      else {
        const whole = guest.object(base, place(guest)) as unknown;
        const value = member === undefined ? whole : memberOf(whole, base, member, isStruct).value;
        if (has('json')) out.json([isStruct(value) ? value : { value: plain(value) }]);
        else if (isStruct(value)) {
          out.lines(value.$format({ offsets: true, ...format }).map(printable));
        } else out.line(printable(text(value, has('hex'))));
        // A member that cannot be read says so; that there is one, the exit code says.
        if (isStruct(value)) guest.read(value.$address, value.$size);
      }
      return EXIT.done;
    });
  },
};

type IsStruct = (value: unknown) => value is StructObject;

/** `task_struct.signal.flags` is a type and a member of it. @throws {UsageError} */
function split(name: string): [string, string | undefined] {
  const dot = name.indexOf('.');
  if (dot === 0 || dot === name.length - 1) {
    throw new UsageError(`Expected TYPE or TYPE.MEMBER but received '${name}'`);
  }
  return dot < 0 ? [name, undefined] : [name.slice(0, dot), name.slice(dot + 1)];
}

function layout(
  guest: Guest,
  base: string,
  member: string | undefined,
  json: boolean,
  out: Output,
): void {
  if (member !== undefined) {
    const found = guest.type(base).member(member);
    const { offset, size, bitSize } = found;
    if (json) {
      out.json([{ type: found.type.name, offset, size, ...(bitSize ? { bits: bitSize } : {}) }]);
      return;
    }
    const bits = bitSize === undefined ? '' : `, ${bitSize} bits`;
    out.line(printable(`${found.type.name}: offset ${offset}, ${size} bytes${bits}`));
    if (found.type.kind === 'struct' || found.type.kind === 'union') {
      out.lines(structText(found.type.struct, out.styles));
    }
    return;
  }
  const struct = guest.kernel.types.find(base);
  const size = guest.objects.sizeof(base);
  if (json) out.json([struct === undefined ? { type: base, size } : structJson(struct)]);
  else if (struct !== undefined) out.lines(structText(struct, out.styles));
  else out.line(printable(`${base}: ${size} bytes`));
}

function structJson({ kind, name, size, members }: StructType): unknown {
  return {
    type: `${kind} ${name}`,
    size,
    members: members.map(({ name, offset, type, bitSize }) => ({
      name,
      offset,
      type: type.name,
      ...(bitSize === undefined ? {} : { bits: bitSize }),
    })),
  };
}

/** @throws {UsageError} the type has no members */
function memberOf(value: unknown, base: string, member: string, isStruct: IsStruct): Reference {
  if (isStruct(value)) return value.$member(member);
  throw new UsageError(`${base} has no members, so there is no .${member}`);
}

function plain(value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

function text(value: unknown, base16: boolean): string {
  if (base16 && (typeof value === 'bigint' || typeof value === 'number')) return hex(value);
  return typeof value === 'string' ? `"${value}"` : String(value);
}
