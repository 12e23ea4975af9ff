import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { VmiError } from '../../lib/errors.js';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import type { LibvmiTarget } from '../../lib/target.js';
import { count, type Fault, StandIn } from './support/stand-in.js';
import { attempting, useMemory } from './support/use-memory.js';

const standIn = new StandIn();
afterEach(() => standIn.calls());
afterAll(() => standIn.remove());

/** Every way a call gets into libvmi: on the caller's thread, and on libvmi's own. */
const WAYS: readonly (readonly [name: string, target: Partial<LibvmiTarget>])[] = [
  ['a domain', { driver: 'kvm' }],
  ['a file on its own thread', { driver: 'file', direct: false }],
  ["a file on the caller's thread", { driver: 'file', direct: true }],
  [
    'a domain in a process of its own',
    { driver: 'kvm', isolate: true, deadline: 5_000, attachDeadline: 5_000 },
  ],
];
const target = (options: Partial<LibvmiTarget>): LibvmiTarget => ({
  driver: 'kvm',
  name: standIn.ram,
  library: standIn.library,
  deadline: 150,
  attachDeadline: 150,
  map: false,
  guard: false,
  ...options,
});

/** Attaches and does everything once; gives what went wrong, in order. */
async function everything(options: Partial<LibvmiTarget>): Promise<unknown[]> {
  const errors: unknown[] = [];
  const attempt = attempting(errors);
  const memory = await attempt(() => openLibvmi(target(options)));
  if (memory === undefined) return errors;
  await useMemory(memory, attempt);
  await attempt(() => memory.close());
  return errors;
}

describe.each(WAYS)('%s', (_, options) => {
  test('without a fault', async () => {
    standIn.order();
    expect(await everything(options)).toEqual([]);
    const calls = standIn.calls();
    expect(count(calls, 'vmi_init')).toBe(1);
    expect(calls.at(-1)).toBe('vmi_destroy');
    expect(calls).not.toContain('OVERLAP');
    for (const cache of ['page', 'v2p', 'sym', 'pid'])
      expect(calls).toContain(`vmi_${cache}cache_flush`);
  });

  test.each<Fault>(['fail', 'short', 'lie'])('any call that is told to %s', async (fault) => {
    for (let call = 1; ; call++) {
      standIn.order(fault, call);
      const errors = await everything(options);
      const calls = standIn.calls();
      for (const error of errors)
        expect(error, `${fault}@${call} (${calls[call - 1]})`).toBeInstanceOf(VmiError);
      expect(count(calls, 'vmi_destroy'), `${fault}@${call}`).toBe(count(calls, 'vmi_init'));
      expect(calls).not.toContain('OVERLAP');
      // What has a result cannot fail unnoticed.
      const hit = calls[call - 1] ?? '';
      const silent =
        /flush|destroy|memsize/.test(hit) || (fault === 'short' && hit !== 'vmi_read_pa');
      const optional =
        hit === 'vmi_get_vcpureg' || hit === 'vmi_read_pa' || hit === 'vmi_get_num_vcpus';
      if (call <= calls.length && !silent && !optional && fault === 'fail') {
        expect(errors, `${fault}@${call} (${hit})`).not.toEqual([]);
      }
      if (calls.length < call) break;
    }
    standIn.order();
    expect(await everything(options)).toEqual([]);
  });
});

test.each([
  ['a domain', 'block', WAYS[0]![1]],
  ['a domain', 'loop', WAYS[0]![1]],
  ['a file on its own thread', 'block', WAYS[1]![1]],
] as const)(
  '%s: any call that is told to %s ends as VMI_BUSY in time',
  async (_, fault, options) => {
    const seen: string[] = [];
    for (let call = 1; ; call++) {
      standIn.order(fault, call, 700);
      const errors = (await everything(options)) as VmiError[];
      // The thread that was left behind ends the instance when libvmi lets go of it.
      await waitFor(() => {
        seen.push(...standIn.calls());
        return count(seen, 'vmi_destroy') === count(seen, 'vmi_init');
      });
      const calls = seen.splice(0);
      if (calls.length < call) {
        expect(errors).toEqual([]);
        break;
      }
      expect(errors.map(({ code }) => code)).toContain('VMI_BUSY');
      for (const { code } of errors) expect(['VMI_BUSY', 'VMI_CLOSED']).toContain(code);
      const hit = calls[call - 1]!.replace(/^vmi_.*cache_flush$/, 'vmi_*cache_flush');
      // With KVM's driver a look at the guest comes first, within the call for a register.
      const names = /flush|read_pa/.test(hit)
        ? [hit, 'vmi_*cache_flush', 'vmi_get_vcpureg']
        : [hit];
      expect(names.map((name) => `${name} of libvmi has not returned in`)).toContain(
        /\S+ of libvmi has not returned in/.exec(errors[0]!.message)?.[0],
      );
      expect(calls).not.toContain('OVERLAP');
    }
    standIn.order();
    expect(await everything(options)).toEqual([]);
  },
  120_000,
);

test('a file is mapped only when libvmi reads the same from it', async () => {
  standIn.order();
  const mapped = await openLibvmi(target({ driver: 'file', map: true }));
  expect(mapped.capabilities.map).toBe(true);
  expect(mapped.description).toContain('file driver, mapped');
  expect(mapped.readU64(0x1238)).toBe(0x1238n);
  await mapped.close();
  expect(standIn.calls().at(-1)).toBe('vmi_destroy');

  process.env.STANDIN_SKEW = '8';
  try {
    const memory = await openLibvmi(target({ driver: 'file', map: true }));
    expect(memory.capabilities.map).toBe(false);
    expect(memory.readU64(0x1238)).toBe(0x1240n);
    await memory.close();
  } finally {
    delete process.env.STANDIN_SKEW;
  }
});

test('an error carries what libvmi printed', async () => {
  standIn.order('fail', 1);
  await expect(openLibvmi(target({ driver: 'xen' }))).rejects.toMatchObject({
    code: 'VMI_ATTACH',
    message: `xen:${standIn.ram}: libvmi's xen driver could not start (is this the hypervisor's host, and is it root?); libvmi said: stand-in: vmi_init was told to fail`,
  });
  standIn.order();
  await expect(openLibvmi(target({ name: 'no such guest' }))).rejects.toMatchObject({
    code: 'VMI_ATTACH',
    message:
      'kvm:no such guest: libvmi found no such virtual machine; libvmi said: stand-in: there is no no such guest',
  });
});

test('a signal ends the waiting, and the instance ends behind it', async () => {
  standIn.order('block', 1, 1_000);
  const controller = new AbortController();
  const opening = openLibvmi(target({ attachDeadline: 30_000 }), { signal: controller.signal });
  const calls: string[] = [];
  const saw = (name: string) => () => {
    calls.push(...standIn.calls());
    return calls.includes(name);
  };
  await waitFor(saw('vmi_init'));
  controller.abort(new Error('enough'));
  await expect(opening).rejects.toMatchObject({
    code: 'VMI_ABORTED',
    message: 'vmi_init was aborted',
    cause: new Error('enough'),
  });
  expect(saw('vmi_destroy')()).toBe(false);
  await waitFor(saw('vmi_destroy'));
});

test('a file that libvmi would crash on never reaches it', async () => {
  standIn.order();
  const open = (name: string) => openLibvmi(target({ driver: 'file', name }));
  await expect(open('/nowhere/ram')).rejects.toMatchObject({
    code: 'VMI_ATTACH',
    message: 'libvmi:/nowhere/ram: cannot read /nowhere/ram: No such file or directory',
  });
  await expect(open(standIn.folder)).rejects.toMatchObject({ code: 'VMI_ATTACH' });
  await expect(open(`/${'x'.repeat(600)}`)).rejects.toMatchObject({
    message: expect.stringContaining('more than 499 bytes'),
  });
  await expect(open('a\0b')).rejects.toBeInstanceOf(RangeError);
  expect(standIn.calls()).toEqual([]);
});

async function waitFor(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !condition(); i++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  expect(condition()).toBe(true);
}
