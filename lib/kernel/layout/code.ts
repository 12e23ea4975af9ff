/*
 * Reads members from code. Of two members with the same values, the instructions of a small
 * function say which of them it reads: `get_task_mm` reads `mm` of the task it is given, and
 *
 *   65 48 8b 05 rel32         mov %gs:pcpu_hot(%rip), %rax     current
 *   48 8b b8 disp32           mov 0x4b8(%rax), %rdi            its real_parent
 *
 * is what `getppid` starts with. Instructions are followed from the start of a function to the
 * first that leaves it; a branch counts as not taken. SDM vol. 2, 2.1 and appendix A.
 */

/** A value that is read: of a member, of what a member points to, and so on. */
export interface Load {
  /** What it starts from: the running task, or the function's first argument. */
  readonly from: 'current' | 'argument';
  /** Offsets that are added before each read. */
  readonly path: readonly number[];
  /** Bytes that are read. */
  readonly size: number;
}

type Value = Pick<Load, 'from' | 'path'>;

const RAX = 0;
const RSP = 4;
const RDI = 7;
const R8 = 8;
/** Registers that a call may change: rax, rcx, rdx, rsi, rdi, r8 to r11. System V ABI, 3.2.1. */
const CLOBBERED = [RAX, 1, 2, 6, RDI, R8, 9, 10, 11];
/** `%gs:40`: the stack protector's canary, up to 6.14. arch/x86/include/asm/stackprotector.h. */
const CANARY = 0x28;
const MAX_INSTRUCTIONS = 64;

/** What a function reads of the running task or of its argument, in the order of its code. */
export function loadsOf(code: Buffer): Load[] {
  const registers = new Map<number, Value>([[RDI, { from: 'argument', path: [] }]]);
  const loads: Load[] = [];
  for (let at = 0, n = 0; n < MAX_INSTRUCTIONS; n++) {
    const one = decode(code, at);
    if (one === undefined || one.leaves) break;
    follow(one, registers, loads);
    at = one.end;
  }
  return loads;
}

/** One instruction, as far as it matters here. */
interface Instruction {
  readonly end: number;
  readonly opcode: number;
  readonly leaves: boolean;
  readonly gs: boolean;
  readonly size: number;
  /** Of a ModRM byte: the register, and what it is joined with. */
  readonly reg: number;
  /** Register of a register operand, or of an address; `undefined` where it has none. */
  readonly base: number | undefined;
  readonly isMemory: boolean;
  readonly indexed: boolean;
  readonly displacement: number;
}

function follow(one: Instruction, registers: Map<number, Value>, loads: Load[]): void {
  const { opcode, reg, base, isMemory, size } = one;
  const value = base === undefined ? undefined : registers.get(base);
  if (opcode === 0xe8) {
    for (const register of CLOBBERED) registers.delete(register);
  } else if (opcode === 0x8b && isMemory) {
    registers.delete(reg);
    const isCurrent = one.gs && size === 8 && one.displacement !== CANARY;
    if (isCurrent) registers.set(reg, { from: 'current', path: [] });
    else if (!one.gs && value !== undefined && !one.indexed) {
      const load = { from: value.from, path: [...value.path, one.displacement], size };
      loads.push(load);
      if (size === 8) registers.set(reg, load);
    }
  } else if (!isMemory && size === 8 && (opcode === 0x89 || opcode === 0x8b)) {
    const [to, from] = opcode === 0x89 ? [base!, reg] : [reg, base!];
    const moved = registers.get(from);
    registers.delete(to);
    if (moved !== undefined) registers.set(to, moved);
  } else if (!CHANGES_NOTHING.has(opcode)) {
    registers.delete(reg);
    if (base !== undefined && !isMemory) registers.delete(base);
  }
}

/** Comparisons, tests, stores, pushes, branches: no register is another one after them. */
const CHANGES_NOTHING: ReadonlySet<number> = new Set([
  0x38,
  0x39,
  0x3a,
  0x3b,
  0x3c,
  0x3d,
  0x84,
  0x85,
  0x88,
  0xa8,
  0xa9,
  0xc6,
  0xc7,
  0x90,
  0x0f1e,
  0x0f1f,
  0x0f0b,
  0x0f0d,
  0x0f18,
  ...range(0x50, 0x57),
  ...range(0x70, 0x7f),
  ...range(0x0f80, 0x0f8f),
]);

function decode(code: Buffer, start: number): Instruction | undefined {
  let at = start;
  let [gs, wide, rex] = [false, false, 0];
  for (; at - start < 4; at++) {
    const byte = code[at]!;
    if (byte === 0x65) gs = true;
    else if (byte === 0x66) wide = true;
    else if (byte !== 0xf0 && byte !== 0xf2 && byte !== 0xf3 && byte !== 0x3e) break;
  }
  if ((code[at]! & 0xf0) === 0x40) rex = code[at++]!;
  let opcode = code[at++]!;
  if (opcode === 0x0f) opcode = 0x0f00 | code[at++]!;
  const size = (rex & 8) !== 0 ? 8 : wide ? 2 : 4;
  const operand = HAS_MODRM.has(opcode) ? modrm(code, at, rex) : shortForm(opcode, rex);
  if (operand === undefined || operand.end > code.length - 8) return undefined;
  const from = operand.end === 0 ? at : operand.end;
  const end = from + immediate(opcode, size, operand.reg & 7);
  const leaves = LEAVES.has(opcode) || (opcode === 0xff && (operand.reg & 7) >= 4);
  return { ...operand, end, opcode, leaves, gs, size };
}

type Operand = Pick<Instruction, 'reg' | 'base' | 'isMemory' | 'indexed' | 'displacement' | 'end'>;

function modrm(code: Buffer, at: number, rex: number): Operand | undefined {
  if (at + 10 > code.length) return undefined;
  const byte = code[at]!;
  const [mode, low] = [byte >> 6, byte & 7];
  const reg = ((byte >> 3) & 7) | ((rex & 4) << 1);
  let base: number | undefined = low | ((rex & 1) << 3);
  if (mode === 3) {
    return { reg, base, isMemory: false, indexed: false, displacement: 0, end: at + 1 };
  }
  let end = at + 1;
  let bytes = mode === 1 ? 1 : mode === 2 ? 4 : 0;
  let indexed = false;
  if (low === RSP) {
    const sib = code[end++]!;
    indexed = ((sib >> 3) & 7) !== RSP || (rex & 2) !== 0;
    base = (sib & 7) | ((rex & 1) << 3);
    if (mode === 0 && (sib & 7) === 5) [base, bytes] = [undefined, 4];
  } else if (mode === 0 && low === 5) [base, bytes] = [undefined, 4];
  const displacement = bytes === 0 ? 0 : code.readIntLE(end, bytes);
  return { reg, base, isMemory: true, indexed, displacement, end: end + bytes };
}

/** Instructions whose register is in the opcode; `undefined`: not known here. */
function shortForm(opcode: number, rex: number): Operand | undefined {
  if (!NO_MODRM.has(opcode)) return undefined;
  const none = { isMemory: false, indexed: false, displacement: 0, end: 0, base: undefined };
  const inOpcode = (opcode >= 0x50 && opcode <= 0x5f) || (opcode >= 0xb0 && opcode <= 0xbf);
  return { ...none, reg: inOpcode ? (opcode & 7) | ((rex & 1) << 3) : RAX };
}

/** Bytes of the operand that follows. */
function immediate(opcode: number, size: number, reg: number): number {
  const long = size === 2 ? 2 : 4;
  if (opcode >= 0xb8 && opcode <= 0xbf) return size === 8 ? 8 : long;
  if (opcode === 0xf6 || opcode === 0xf7) return reg > 1 ? 0 : opcode === 0xf6 ? 1 : long;
  if (BYTE_OPERAND.has(opcode)) return 1;
  return WORD_OPERAND.has(opcode) ? long : 0;
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** The eight arithmetic operations, each with the same forms. */
const ARITHMETIC = range(0, 7).map((operation) => operation * 8);
const HAS_MODRM: ReadonlySet<number> = new Set([
  ...ARITHMETIC.flatMap((first) => range(first, first + 3)),
  ...range(0x80, 0x8b),
  ...range(0xd0, 0xd3),
  ...[0x63, 0x69, 0x6b, 0x8d, 0x8f, 0xc0, 0xc1, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff],
  ...range(0x0f40, 0x0f4f),
  ...range(0x0f90, 0x0f9f),
  ...[0x0f01, 0x0f0d, 0x0f18, 0x0f1e, 0x0f1f, 0x0fa3, 0x0fab, 0x0faf, 0x0fb0, 0x0fb1, 0x0fb3],
  ...[0x0fb6, 0x0fb7, 0x0fba, 0x0fbb, 0x0fbe, 0x0fbf, 0x0fc0, 0x0fc1],
]);
const NO_MODRM: ReadonlySet<number> = new Set([
  ...ARITHMETIC.flatMap((first) => [first + 4, first + 5]),
  ...range(0x50, 0x5f),
  ...range(0x70, 0x7f),
  ...range(0xb0, 0xbf),
  ...range(0x0f80, 0x0f8f),
  ...[0x68, 0x6a, 0x90, 0x98, 0x99, 0xa8, 0xa9, 0xc3, 0xc9, 0xcc, 0xe8, 0xe9, 0xeb, 0xfa, 0xfb],
  ...[0x0f0b],
]);
const BYTE_OPERAND: ReadonlySet<number> = new Set([
  ...ARITHMETIC.map((first) => first + 4),
  ...range(0x70, 0x7f),
  ...range(0xb0, 0xb7),
  ...[0x6a, 0x6b, 0x80, 0x83, 0xa8, 0xc0, 0xc1, 0xc6, 0xeb, 0x0fba],
]);
const WORD_OPERAND: ReadonlySet<number> = new Set([
  ...ARITHMETIC.map((first) => first + 5),
  ...range(0x0f80, 0x0f8f),
  ...[0x68, 0x69, 0x81, 0xa9, 0xc7, 0xe8, 0xe9],
]);
/** Returns, jumps, and what fills the space between functions. */
const LEAVES: ReadonlySet<number> = new Set([0xc3, 0xcc, 0xe9, 0xeb]);
