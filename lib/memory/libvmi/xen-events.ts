import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { addon } from '../../addon.js';
import { type XenDomain, xenDomains } from './xen-domains.js';

/** A process of this host. */
export interface HostProcess {
  readonly pid: number;
  readonly name: string;
}

/** A domain of Xen whose events are on. */
export interface XenEvents {
  readonly domain: number;
  readonly name: string;
  /**
   * Processes of this host that may listen to them; none: they were left on by one that ended, and
   * as soon as eight are waiting the domain stands still.
   */
  readonly listeners: readonly HostProcess[];
}

/** Milliseconds that one question to Xen may take. */
const PATIENCE = 10_000;
/** Xen's own, which have event channels and foreign memory for other purposes. */
const DAEMONS = /^(o?xenstored|xenconsoled|qemu-.*|xl|libvirtd|virtxend)$/;

/** Domains whose events are on. Changes nothing, and stops no domain. */
export function xenEvents(domains: readonly XenDomain[] = xenDomains()): XenEvents[] {
  const on = domains.filter(({ id }) => monitor('--monitor', id) === 'on');
  if (on.length === 0) return [];
  const listeners = possibleListeners();
  return on.map(({ id, name }) => ({ domain: id, name, listeners }));
}

/**
 * Turns off the events of a domain, whoever turned them on; it runs on, if it waited for them.
 * @returns whether they are off now
 */
export function turnXenEventsOff(domain: number): boolean {
  return monitor('--release', domain) !== undefined;
}

/** What the program that runs libvmi says; `undefined` when it cannot ask Xen. */
function monitor(what: '--monitor' | '--release', domain: number): string | undefined {
  try {
    return execFileSync(addon().libvmiHost(), [what, String(domain)], {
      encoding: 'utf8',
      timeout: PATIENCE,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return undefined;
  }
}

/**
 * Processes that could listen to a domain: with a handle of event channels, and memory of another
 * domain mapped, as the ring of its events is.
 */
function possibleListeners(): HostProcess[] {
  const found: HostProcess[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const name = readFileSync(`/proc/${entry}/comm`, 'utf8').trimEnd();
      if (DAEMONS.test(name) || !hasEventChannels(entry)) continue;
      if (readFileSync(`/proc/${entry}/maps`, 'latin1').includes('/dev/xen/privcmd'))
        found.push({ pid: Number(entry), name });
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

function hasEventChannels(pid: string): boolean {
  return readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === '/dev/xen/evtchn';
    } catch {
      return false;
    }
  });
}
