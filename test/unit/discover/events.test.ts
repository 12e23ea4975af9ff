import { expect, test } from 'vitest';
import { eventsFinding, fixEvents } from '../../../lib/discover/events.js';

const left = { domain: 5, name: 'web:1', listeners: [] };
const heard = { domain: 6, name: 'db', listeners: [{ pid: 42, name: 'libvmi_host' }] };

test('no domain has its events on', () => {
  expect(eventsFinding([])).toEqual({
    check: 'events',
    status: 'ok',
    detail: 'no domain of Xen has its events on',
  });
});

test('events of a listener that runs are as they should be', () => {
  expect(eventsFinding([heard])).toMatchObject({
    status: 'ok',
    detail: 'the events of domain 6 ("db") are on; who may listen: libvmi_host (42)',
  });
});

test('events that were left on are a warning with the way out', () => {
  expect(eventsFinding([left])).toMatchObject({
    status: 'warning',
    detail: expect.stringContaining('domain 5 ("web:1") were left on'),
    fix: 'vmi doctor --fix turns them off',
  });
});

test('nothing is turned off that a process may be listening to', () => {
  expect(fixEvents([heard])).toEqual([]);
  // This host has no Xen.
  expect(fixEvents([left, heard])).toMatchObject([
    { status: 'warning', detail: 'cannot turn off the events of domain 5 ("web:1")' },
  ]);
});
