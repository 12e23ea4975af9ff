import { describe, expect, it } from 'vitest';
import { loadsOf } from '../../../lib/kernel/layout/code.js';

/** Code, with what fills the space behind a function. */
const code = (text: string) =>
  Buffer.concat([Buffer.from(text.replace(/\s/g, ''), 'hex'), Buffer.alloc(32, 0xcc)]);

// As GCC 12 makes them of Linux 6.12, with structures shuffled.
const GETPPID = `65 48 8b 05 48 84 fc 7e  31 d2  be 01 00 00 00  48 8b b8 b8 04 00 00
  e8 cc a3 00 00  48 98  c3`;
const GETUID = `65 48 8b 05 28 84 fc 7e  48 8b 80 38 04 00 00  8b 40 40  83 f8 ff
  0f 44 05 48 a5 7c 00  89 c0  c3`;
const GET_TASK_MM = `f3 0f 1e fa  0f 1f 44 00 00  f6 87 8a 04 00 00 20  75 2c  53  48 89 fb
  48 8d bf 98 05 00 00  e8 c7 b4 20 00  48 8b 83 20 08 00 00  48 85 c0  74 07
  f0 ff 80 18 04 00 00  c6 83 98 05 00 00 00  5b  c3`;

describe('the members that code reads', () => {
  it('are those of the running task', () => {
    expect(loadsOf(code(GETPPID))).toEqual([{ from: 'current', path: [0x4b8], size: 8 }]);
  });

  it('are those of what a member points to', () => {
    expect(loadsOf(code(GETUID))).toEqual([
      { from: 'current', path: [0x438], size: 8 },
      { from: 'current', path: [0x438, 0x40], size: 4 },
    ]);
  });

  it('are those of the argument, that a call left where it was put', () => {
    expect(loadsOf(code(GET_TASK_MM))).toEqual([{ from: 'argument', path: [0x820], size: 8 }]);
  });

  it('are none of what a call may have changed', () => {
    // call; mov 8(%rdi), %rax
    expect(loadsOf(code('e8 00 00 00 00  48 8b 47 08  c3'))).toEqual([]);
    // lea 8(%rdi), %rdi; mov 8(%rdi), %rax
    expect(loadsOf(code('48 8d 7f 08  48 8b 47 08  c3'))).toEqual([]);
    // mov 8(%rdi,%rax,8), %rax
    expect(loadsOf(code('48 8b 44 c7 08  c3'))).toEqual([]);
  });

  it('end where the function is left, and at what is no known instruction', () => {
    const load = '48 8b 47 08';
    expect(loadsOf(code(load))).toHaveLength(1);
    for (const end of ['c3', 'e9 00 00 00 00', 'eb 00', 'ff e0', '0f 05', 'c5 f8 77'])
      expect(loadsOf(code(`${end} ${load}`)), end).toEqual([]);
  });

  it('are not those of the stack protector', () => {
    // mov %gs:40, %rax; mov 8(%rax), %rax
    expect(loadsOf(code('65 48 8b 04 25 28 00 00 00  48 8b 40 08  c3'))).toEqual([]);
  });

  it('are found, or not, in any bytes', () => {
    let seed = 1;
    for (let n = 0; n < 5_000; n++) {
      const bytes = Buffer.alloc(n % 64);
      for (const i of bytes.keys()) {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
        bytes[i] = seed >>> 16;
      }
      expect(Array.isArray(loadsOf(bytes))).toBe(true);
    }
  });
});
