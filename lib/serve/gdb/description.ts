import type { UserRegisters } from '../../helpers/index.js';

/*
 * What a thread's registers are called and in which order they are sent: gdb's own features of the
 * architecture, without what no kernel saves in `pt_regs`. gdb/features/i386/64bit-core.xml,
 * 32bit-core.xml, 64bit-linux.xml, 64bit-segments.xml.
 */

interface Register {
  readonly name: string;
  readonly bits: number;
  readonly type: string;
}

/** One kind of program. */
export interface Description {
  /** `target.xml` */
  readonly xml: string;
  readonly registers: readonly Register[];
}

const words = (names: string, bits: number, type: string): Register[] =>
  names.split(' ').map((name) => ({ name, bits, type }));

const SEGMENTS = words('cs ss ds es fs gs', 32, 'int32');
const FLOATS = [
  ...words('st0 st1 st2 st3 st4 st5 st6 st7', 80, 'i387_ext'),
  ...words('fctrl fstat ftag fiseg fioff foseg fooff fop', 32, 'int'),
];

const CORE_64: Register[] = [
  ...words('rax rbx rcx rdx rsi rdi', 64, 'int64'),
  ...words('rbp rsp', 64, 'data_ptr'),
  ...words('r8 r9 r10 r11 r12 r13 r14 r15', 64, 'int64'),
  ...words('rip', 64, 'code_ptr'),
  ...words('eflags', 32, 'int32'),
  ...SEGMENTS,
  ...FLOATS,
];
const CORE_32: Register[] = [
  ...words('eax ecx edx ebx', 32, 'int32'),
  ...words('esp ebp', 32, 'data_ptr'),
  ...words('esi edi', 32, 'int32'),
  ...words('eip', 32, 'code_ptr'),
  ...words('eflags', 32, 'int32'),
  ...SEGMENTS,
  ...FLOATS,
];

const AMD64 = describe('i386:x86-64', [
  ['core', CORE_64],
  ['linux', words('orig_rax', 64, 'int')],
  ['segments', words('fs_base gs_base', 64, 'int')],
]);
/** A 32-bit program on a 64-bit kernel. */
const I386 = describe('i386', [
  ['core', CORE_32],
  ['linux', words('orig_eax', 32, 'int')],
]);

/** How the registers of a 64-bit program, or of a 32-bit one, are told. */
export function descriptionOf(compat: boolean): Description {
  return compat ? I386 : AMD64;
}

/**
 * Registers as the answer to `g` or `p`: hex digits, the lowest byte first, `x` for what is not
 * known.
 * @param saved `undefined`: none of them is known
 */
export function registerText(register: Register, saved: UserRegisters | undefined): string {
  const value = saved === undefined ? undefined : valueIn(register.name, saved);
  const digits = register.bits / 4;
  if (value === undefined) return 'x'.repeat(digits);
  let text = '';
  for (let shift = 0; shift < register.bits; shift += 8)
    text += ((value >> BigInt(shift)) & 0xffn).toString(16).padStart(2, '0');
  return text;
}

function valueIn(name: string, saved: UserRegisters): bigint | undefined {
  const values = saved as unknown as Readonly<Record<string, bigint | undefined>>;
  return values[name] ?? values[name.replace(/^(orig_)?e(?=..$)/, '$1r')];
}

function describe(
  architecture: string,
  features: readonly (readonly [name: string, registers: readonly Register[]])[],
): Description {
  const parts = features.map(
    ([name, registers]) =>
      `<feature name="org.gnu.gdb.i386.${name}">${registers
        .map((one) => `<reg name="${one.name}" bitsize="${one.bits}" type="${one.type}"/>`)
        .join('')}</feature>`,
  );
  return {
    xml: `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>${architecture}</architecture><osabi>GNU/Linux</osabi>${parts.join('')}</target>`,
    registers: features.flatMap(([, registers]) => registers),
  };
}
