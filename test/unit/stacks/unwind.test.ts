import { describe, expect, it } from 'vitest';
import { frameText } from '../../../lib/stacks/frames.js';
import { Unwinder } from '../../../lib/stacks/unwind.js';
import { BtfBuilder } from '../kernel/support/build-btf.js';
import { BASE, MadeMemory, madeObjects } from '../objects/support/made-kernel.js';

/** Where things are in the made memory. */
const TEXT = 0x1000;
const IPS = 0x3000;
const ENTRIES = 0x3100;
const TASK = 0x4000;
const STACK = 0x8000;
const SP = 0xb000;

const LEAF = 0x1040;
const MIDDLE = 0x1100;
const ROOT = 0x1200;

/** The numbers of ORC_REG_SP, _BP and _PREV_SP: up to 7.1, and since 7.2. */
const OLD = { sp: 5, bp: 4, previous: 1 };
const NEW = { sp: 3, bp: 4, previous: 8 };
const CALL = 2;
const END = 1;

/**
 * A leaf without a frame pointer, called by a function with one, called by a stack's first
 * function.
 */
function made(numbers: typeof OLD) {
  const b = new BtfBuilder();
  const u64 = b.int('long unsigned int', 8);
  const int = b.int('int', 4, 1);
  const short = b.int('short int', 2, 1);
  const unsigned = b.int('unsigned int', 4);
  const thread = b.struct('thread_struct', 8, [{ name: 'sp', type: u64, bits: 0 }]);
  b.struct('task_struct', 64, [
    { name: 'stack', type: b.pointer(0), bits: 0 },
    { name: 'on_cpu', type: int, bits: 64 },
    { name: 'thread', type: thread, bits: 128 },
  ]);
  b.struct('inactive_task_frame', 56, [
    { name: 'bp', type: u64, bits: 320 },
    { name: 'ret_addr', type: u64, bits: 384 },
  ]);
  b.struct('orc_entry', 6, [
    { name: 'sp_offset', type: short, bits: 0, bitSize: 0 },
    { name: 'bp_offset', type: short, bits: 16, bitSize: 0 },
    { name: 'sp_reg', type: unsigned, bits: 32, bitSize: 4 },
    { name: 'bp_reg', type: unsigned, bits: 36, bitSize: 4 },
    { name: 'type', type: unsigned, bits: 40, bitSize: 3 },
    { name: 'signal', type: unsigned, bits: 43, bitSize: 1 },
  ]);
  const memory = new MadeMemory(0xc000);
  const table: [at: number, sp: number, bp: number, reg: number, bpReg: number, type: number][] = [
    [LEAF, 8, 0, numbers.sp, 0, CALL],
    [LEAF + 0x10, 16, 0, numbers.sp, 0, CALL],
    [MIDDLE, 8, 0, numbers.sp, 0, CALL],
    [MIDDLE + 1, 16, -16, numbers.sp, numbers.previous, CALL],
    [MIDDLE + 4, 16, -16, numbers.bp, numbers.previous, CALL],
    [ROOT, 0, 0, 0, 0, END],
  ];
  for (const [i, [at, sp, bp, reg, bpReg, type]] of table.entries()) {
    memory.bytes.writeInt32LE(at - (IPS + i * 4), IPS + i * 4);
    memory.bytes.writeInt16LE(sp, ENTRIES + i * 6);
    memory.bytes.writeInt16LE(bp, ENTRIES + i * 6 + 2);
    memory.bytes.writeUInt16LE(reg | (bpReg << 4) | (type << 8), ENTRIES + i * 6 + 4);
  }
  const at = (offset: number) => BASE + BigInt(offset);
  memory.put(TASK, at(STACK), 0n, at(SP));
  // The saved frame: bp, and where the leaf goes on. Behind it the leaf's 8 bytes and return
  // address.
  memory.put(SP + 40, at(SP + 0x100), at(LEAF + 0x20));
  memory.put(SP + 56, 0n, at(MIDDLE + 0x10));
  // The middle's frame pointer, and where it was called from.
  memory.put(SP + 0x100, 0n, at(ROOT + 5));
  const objects = madeObjects(b, memory, {
    _stext: at(TEXT),
    leaf: at(LEAF),
    middle: at(MIDDLE),
    root: at(ROOT),
    _etext: at(TEXT + 0x1000),
    __start_orc_unwind_ip: at(IPS),
    __stop_orc_unwind_ip: at(IPS + table.length * 4),
    __start_orc_unwind: at(ENTRIES),
  });
  const stack = () => new Unwinder(objects).stack(at(TASK));
  return { memory, at, stack };
}

describe('a stack by ORC', () => {
  it.each([OLD, NEW])('is followed to its first function, registers numbered %o', (numbers) => {
    const { stack } = made(numbers);
    const found = stack();
    expect(found.map(frameText)).toEqual(['leaf+0x20', 'middle+0x10', 'root+0x5']);
    expect(found.incomplete).toBeUndefined();
    expect(`${found}`).toBe('leaf+0x20\nmiddle+0x10\nroot+0x5');
  });

  it('is none of a task that runs, or has exited', () => {
    const running = made(OLD);
    running.memory.bytes.writeInt32LE(1, TASK + 8);
    expect(running.stack).toThrow(expect.objectContaining({ code: 'VMI_UNSUPPORTED' }));
    const gone = made(OLD);
    gone.memory.put(TASK, 0n);
    expect(gone.stack).toThrow('has exited: it has no stack');
  });

  it('ends where it is none, and says why', () => {
    const outside = made(OLD);
    outside.memory.put(TASK + 16, outside.at(0x100));
    expect(outside.stack()).toMatchObject({
      length: 0,
      incomplete: expect.stringMatching(/is not in its stack/),
    });
    const wild = made(OLD);
    wild.memory.put(SP + 64, 0xdead_0000_0000_0100n);
    expect(wild.stack()).toMatchObject({
      length: 1,
      incomplete: '0xdead000000000100 is no kernel text',
    });
    const away = made(OLD);
    away.memory.put(SP + 40, 0n);
    expect(away.stack()).toMatchObject({
      length: 2,
      incomplete: expect.stringMatching(/is not in the stack/),
    });
    const down = made(OLD);
    // The middle's frame is said to lie below the one that it called.
    down.memory.put(SP + 40, down.at(SP + 8));
    down.memory.put(SP + 16, down.at(ROOT + 5));
    expect(down.stack()).toMatchObject({
      incomplete: expect.stringMatching(/is not above its own/),
    });
  });

  it('marks what a frame pointer was believed for', () => {
    const { memory, at, stack } = made(OLD);
    // A place before every entry of the table.
    memory.put(SP + 48, at(TEXT + 8));
    expect(stack().map(frameText)).toEqual(['_stext+0x8', '? root+0x5']);
  });
});
