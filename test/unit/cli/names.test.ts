import { describe, expect, it } from 'vitest';
import { targetAmong } from '../../../lib/discover/find-target.js';
import { vmi } from './fake-guest.js';

describe('a guest by its name', () => {
  it.each([['vm'], ['qemu:vm'], ['4242'], ['qemu:4242']])('%s', async (word) => {
    const { code, stdout, attached } = await vmi(['cr3', word, '1']);
    expect([code, stdout]).toEqual([0, '0x2c10000\n']);
    expect(attached?.target).toEqual({ kind: 'qemu', pid: 4242 });
  });

  it.each([
    ['web', "several guests are called 'web': qemu:4300 (web), qemu:4301 (web); name one of these"],
    ['wb', "no guest on this host is called 'wb'; did you mean web?"],
    ['nobody', "no guest on this host is called 'nobody'; 'vmi list' shows what runs here"],
    ['/dev/null', "called '/dev/null', but a file is; did you mean image:/dev/null?"],
  ])('%s is said to be none', async (word, why) => {
    const { code, stderr } = await vmi(['ps', word]);
    expect(stderr).toContain(why);
    expect(code).toBe(3);
  });

  it('is not needed where there is one', async () => {
    expect((await vmi(['ps'])).stderr).toContain('3 guests run on this host: qemu:4242 (vm), ');
    const one = {
      pid: 7,
      domain: null,
      name: '',
      memory: null,
      machine: null,
      qmpSockets: [],
      readable: true,
      targets: ['qmp:/run/x', 'qemu:7'],
    };
    expect(targetAmong(undefined, [one])).toEqual({ kind: 'qmp', socket: '/run/x' });
    expect(() => targetAmong(undefined, [])).toThrow('no guest runs on this host');
    expect((await vmi(['cr3'])).code).toBe(2);
  });
});

describe('- stands for standard input', () => {
  it('for PIDs and for CR3 values', async () => {
    const { stdout } = await vmi(['cr3', 'qemu:4242', '-'], undefined, ['1\n', '7 ', '\n']);
    expect(stdout).toBe('1  0x2c10000  mm\n7  0x3000000  mm\n');
    const who = await vmi(['who', 'vm', '-', '--json'], undefined, ['0x2c10', '000 0x3000000']);
    const values = who.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).value);
    expect([...new Set(values)]).toEqual(['0x2c10000', '0x3000000']);
    expect(await vmi(['cr3', 'vm', '-'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("'-' stands for standard input, which has no words"),
    });
    expect((await vmi(['cr3', 'vm', '-'], undefined, ['x'])).code).toBe(2);
  });
});
