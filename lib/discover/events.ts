import { turnXenEventsOff, type XenEvents, xenEvents } from '../memory/libvmi/xen-events.js';
import { checkList, checkObject, checkWhole } from '../options.js';
import type { Finding } from './finding.js';

const check = 'events';

/** Whether a domain of Xen has its events on, and nobody left to take them. */
export function eventsFinding(domains: readonly XenEvents[]): Finding {
  const left = domains.filter(({ listeners }) => listeners.length === 0);
  if (left.length > 0) {
    return {
      check,
      status: 'warning',
      detail: `the events of ${named(left)} were left on by a program that has ended: a domain stands still as soon as its ring is full, and nobody can listen`,
      fix: 'vmi doctor --fix turns them off',
    };
  }
  if (domains.length === 0) {
    return { check, status: 'ok', detail: 'no domain of Xen has its events on' };
  }
  const listeners = domains[0]!.listeners.map(({ name, pid }) => `${name} (${pid})`).join(', ');
  return {
    check,
    status: 'ok',
    detail: `the events of ${named(domains)} are on; who may listen: ${listeners}`,
  };
}

/**
 * Turns off the events of Xen's domains that no process of this host can be listening to: those of
 * a listener that was ended with all that would have done it. A domain that stood still for them
 * runs on.
 *
 * @returns one finding a domain that was freed, or could not be
 */
export function fixEvents(domains: readonly XenEvents[] = xenEvents()): Finding[] {
  checkList(domains, 'domains', (domain, name) => {
    const { domain: number, listeners = null } = checkObject(domain, name) as Partial<XenEvents>;
    checkWhole(number, `${name}.domain`, 0, 0x7fff);
    checkList(listeners, `${name}.listeners`, () => {});
  });
  return domains
    .filter(({ listeners }) => listeners.length === 0)
    .map((domain) =>
      turnXenEventsOff(domain.domain)
        ? { check, status: 'ok', detail: `turned off the events of ${named([domain])}` }
        : {
            check,
            status: 'warning',
            detail: `cannot turn off the events of ${named([domain])}`,
            fix: 'run vmi as root, in dom0',
          },
    );
}

function named(domains: readonly XenEvents[]): string {
  return domains.map(({ domain, name }) => `domain ${domain} ("${name}")`).join(', ');
}
