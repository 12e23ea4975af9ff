import { afterAll, afterEach, expect, test } from 'vitest';
import { VmiError } from '../../lib/errors.js';
import { libvmiReport } from '../../lib/libvmi/report.js';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import { NO_LIBVMI } from './support/real.js';
import { StandIn } from './support/stand-in.js';

const standIn = new StandIn();
const before = process.env.LIBVMI_LIBRARY;
afterEach(() => {
  if (before === undefined) delete process.env.LIBVMI_LIBRARY;
  else process.env.LIBVMI_LIBRARY = before;
});
afterAll(() => standIn.remove());

test('a library that is not there', () => {
  const report = libvmiReport('/nowhere/libvmi.so');
  expect(report).toMatchObject({ loaded: false, usable: false, path: undefined, drivers: [] });
  expect(report.tried).toEqual([
    { name: '/nowhere/libvmi.so', error: expect.stringContaining('No such file') },
  ]);
  expect(report.error).toContain('https://libvmi.com/docs/gcode-install.html');
});

test('the environment names the library, and nothing else is tried then', () => {
  process.env.LIBVMI_LIBRARY = '/nowhere/else.so';
  expect(libvmiReport().tried.map(({ name }) => name)).toEqual(['/nowhere/else.so']);
  process.env.LIBVMI_LIBRARY = standIn.library;
  const report = libvmiReport();
  expect(report).toMatchObject({
    loaded: true,
    usable: true,
    error: undefined,
    needed: [],
    path: standIn.library,
  });
  expect(report.missing).toContain('vmi_set_vcpureg');
});

test('a library that is too old', async () => {
  const report = libvmiReport(standIn.tooOld);
  expect(report).toMatchObject({ loaded: true, usable: false, needed: ['vmi_pagecache_flush'] });
  expect(report.error).toMatch(/lacks vmi_pagecache_flush; install libvmi 0\.14 or later/);
  await expect(
    openLibvmi({ driver: 'file', name: standIn.ram, library: standIn.tooOld }),
  ).rejects.toMatchObject({
    code: 'VMI_LIBRARY_MISSING',
    message: expect.stringMatching(
      /too old or not libvmi: it lacks vmi_pagecache_flush\. libvmi 0\.14 or later is needed/,
    ),
  });
});

test('a library that is something else', async () => {
  const name = 'libc.so.6';
  expect(libvmiReport(name).needed).toContain('vmi_init');
  const error = await openLibvmi({ driver: 'file', name: standIn.ram, library: name }).catch(
    (error) => error,
  );
  expect(error).toBeInstanceOf(VmiError);
  expect(error.code).toBe('VMI_LIBRARY_MISSING');
});

test('an absent library names what was tried and the guide', async () => {
  await expect(
    openLibvmi({ driver: 'xen', name: 'web:1', library: '/nowhere/libvmi.so' }),
  ).rejects.toMatchObject({
    code: 'VMI_LIBRARY_MISSING',
    message: expect.stringMatching(
      /^xen:web:1: cannot load libvmi: tried \/nowhere\/libvmi\.so \(.*No such file.*\)\. Install libvmi 0\.14 or later \(https:.*\), or name the file in LIBVMI_LIBRARY$/,
    ),
  });
});

test.skipIf(NO_LIBVMI !== undefined)('the real one', () => {
  const report = libvmiReport();
  expect(report.path).toMatch(/^\/.*libvmi/);
  expect(report.version).toMatch(/^0\.1[4-9]/);
  expect(report.missing).toEqual([]);
  expect(report.drivers.find(({ name }) => name === 'file')?.present).not.toBe(false);
});
