import { describe, expect, it } from 'vitest';
import { xenFinding } from '../../../lib/discover/diagnosis.js';
import { guestsOf } from '../../../lib/discover/list-guests.js';
import { formatTarget, parseTarget } from '../../../lib/index.js';
import type { LibvmiReport } from '../../../lib/libvmi/report.js';
import { parseXenstore, parseXlList, xenDomains } from '../../../lib/memory/libvmi/xen-domains.js';

describe('xen:', () => {
  it.each(['10', 'my vm', 'web:1', '-x', ' ', "it's"])("takes '%s' for a name", (name) => {
    const target = parseTarget(`xen:${name}`);
    expect(target).toEqual({ kind: 'libvmi', driver: 'xen', name });
    expect(formatTarget(target)).toBe(`xen:${name}`);
  });
});

describe('xl list -l', () => {
  it('gives names, kinds and memory of all but dom0', () => {
    const text = JSON.stringify([
      {
        domid: 0,
        config: { c_info: { type: 'pv', name: 'Domain-0' }, b_info: { target_memkb: 1 } },
      },
      {
        domid: 12,
        config: { c_info: { type: 'pv', name: 'web:1' }, b_info: { target_memkb: 327_680 } },
      },
      { domid: 3, config: { c_info: { type: 'pvh', name: '10' }, b_info: {} } },
      { domid: 4, config: {} },
    ]);
    expect(parseXlList(text)).toEqual([
      { id: 3, name: '10', type: 'pvh', memory: undefined },
      { id: 12, name: 'web:1', type: 'pv', memory: 335_544_320n },
    ]);
  });

  it.each(['', 'failed to list', '{}', '[1, 2', 'null'])("takes '%s' for no answer", (text) => {
    expect(parseXlList(text)).toBeUndefined();
  });

  it('takes what it does not know for no guest', () => {
    expect(parseXlList('[null, 5, {"domid": "x"}]')).toEqual([]);
  });
});

describe('xenstore-ls', () => {
  it('gives the same but kinds', () => {
    const text = [
      '/local/domain/0/name = "Domain-0"',
      '/local/domain/7 = ""',
      '/local/domain/7/name = "a \\"b\\" \\303\\251"',
      '/local/domain/7/memory/target = "1024"',
      '/local/domain/8/vm/name = "not this"',
      '/local/domain/9/name = "10"',
      '/local/domain/9/memory/target = "much"',
    ].join('\n');
    expect(parseXenstore(text)).toEqual([
      { id: 7, name: 'a "b" é', type: undefined, memory: 1_048_576n },
      { id: 9, name: '10', type: undefined, memory: undefined },
    ]);
  });
});

describe('the domains of Xen', () => {
  it('are none where this host is no dom0', () => {
    const nothing = { PATH: '/nowhere' };
    expect(xenDomains({ xen: false, control: false, privcmd: 'absent' }, nothing)).toEqual([]);
    expect(xenDomains({ xen: true, control: false, privcmd: 'usable' }, nothing)).toEqual([]);
  });

  it('are guests with a target', () => {
    expect(
      guestsOf([], [{ id: 2, name: 'my vm', type: 'pvh', memory: 1n << 30n }]).map(
        ({ readable: _, ...guest }) => guest,
      ),
    ).toEqual([
      {
        pid: null,
        domain: 2,
        name: 'my vm',
        memory: 1 << 30,
        machine: 'xen-pvh',
        qmpSockets: [],
        targets: ['xen:my vm'],
      },
    ]);
  });

  it('are none of the processes that serve them', () => {
    const args = ['qemu-system-i386', '-xen-domid', '3', '-name', 'hvm'];
    const process = {
      pid: 1,
      args,
      name: 'hvm',
      qmpSockets: [],
    };
    expect(
      guestsOf(
        [
          {
            ...process,
            memory: undefined,
            machine: undefined,
            libvirt: false,
          },
        ],
        [],
      ),
    ).toEqual([]);
  });
});

describe('vmi doctor on Xen', () => {
  const dom0 = { xen: true, control: true, privcmd: 'usable' } as const;
  const report = (missing: string[], present: boolean | undefined = true): LibvmiReport => ({
    loaded: true,
    usable: true,
    path: '/usr/lib/libvmi.so.0',
    version: '0.14',
    tried: [],
    error: undefined,
    needed: [],
    missing: [],
    drivers: [{ name: 'xen', present, missing }],
  });

  it('is content off Xen, and in a dom0 that has all', () => {
    expect(xenFinding({ xen: false, control: false, privcmd: 'absent' }, undefined).status).toBe(
      'ok',
    );
    expect(xenFinding(dom0, report([]))).toEqual({
      check: 'xen',
      status: 'ok',
      detail: 'dom0 of Xen: its domains can be read (xen:NAME)',
    });
  });

  it('names what is missing, and what to do', () => {
    const of = (...args: Parameters<typeof xenFinding>) => {
      const { status, fix } = xenFinding(...args);
      return `${status}: ${fix}`;
    };
    expect(of({ ...dom0, control: false }, report([]))).toMatch(
      /^warning: in dom0: sudo modprobe xenfs/,
    );
    expect(of({ ...dom0, privcmd: 'absent' }, report([]))).toBe(
      'warning: sudo modprobe xen-privcmd',
    );
    expect(of({ ...dom0, privcmd: 'forbidden' }, report([]))).toBe(
      'warning: run vmi as root (sudo)',
    );
    expect(of(dom0, undefined)).toBe('warning: see libvmi in this report');
    expect(of(dom0, { ...report([]), usable: false })).toBe('warning: see libvmi in this report');
    expect(of(dom0, report([], false))).toContain('apt-get install libxen-dev');
    expect(of(dom0, report(['libxenstore.so']))).toContain('sudo apt-get install libxen-dev');
  });
});
