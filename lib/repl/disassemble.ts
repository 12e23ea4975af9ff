import { type Guest, hex, VmiError } from '../index.js';
import { symbolText } from '../text/symbol.js';

/** The package that disassembles, where its user installed it: an optional peer. */
const PACKAGE = '@alexaltea/capstone-js';
/** The longest instruction. SDM vol. 2A, 2.3.11. */
const LONGEST = 15;

/** What is used of the package. Its addresses are signed. */
interface Capstone {
  readonly ARCH_X86: number;
  readonly MODE_64: number;
  readonly Capstone: new (
    architecture: number,
    mode: number,
  ) => {
    disasm(
      bytes: Uint8Array,
      address: bigint,
      max: number,
    ): readonly {
      readonly address: bigint;
      readonly bytes: readonly number[];
      readonly mnemonic: string;
      readonly op_str: string;
    }[];
    close(): void;
  };
}

/**
 * Disassembles kernel code: a line an instruction, addresses in it with their symbols.
 * @throws {VmiError} `VMI_UNSUPPORTED`: the package is not installed
 * @throws {FaultError} not mapped
 */
export async function disassemble(guest: Guest, address: bigint, count = 16): Promise<string[]> {
  const capstone = await load();
  const bytes = Buffer.alloc(count * LONGEST);
  const read = guest.kernel.memory.readInto(address, bytes);
  if (read === 0) guest.read(address, 1);
  const engine = new capstone.Capstone(capstone.ARCH_X86, capstone.MODE_64);
  try {
    return engine
      .disasm(bytes.subarray(0, read), address, count)
      .map(({ address: signed, bytes, mnemonic, op_str: operands }) => {
        const at = BigInt.asUintN(64, signed);
        const code = Buffer.from(bytes).toString('hex');
        const named = operands.replace(/0x[0-9a-f]{16}/g, (text) => {
          const place = guest.symbolAt(BigInt(text));
          return place === undefined ? text : `${text} <${symbolText(BigInt(text), place)}>`;
        });
        const where = symbolText(at, guest.symbolAt(at));
        return `${hex(at)} ${where}  ${code.padEnd(20)}  ${`${mnemonic} ${named}`.trim()}`;
      });
  } finally {
    engine.close();
  }
}

async function load(): Promise<Capstone> {
  let loaded: { readonly default: () => Promise<Capstone> };
  try {
    // @ts-expect-error It has no types.
    loaded = await import('@alexaltea/capstone-js');
  } catch (error) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `disassembling takes the package ${PACKAGE}: npm install ${PACKAGE}`,
      { cause: error },
    );
  }
  return loaded.default();
}
