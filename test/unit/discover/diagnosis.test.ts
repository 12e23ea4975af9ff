import { describe, expect, it } from 'vitest';
import { findingText } from '../../../lib/cli/commands/doctor.js';
import {
  addonFinding,
  cacheFinding,
  guestsFinding,
  kvmFinding,
  libvirtFinding,
  libvmiFinding,
  nodeFinding,
  platformFinding,
  qemuFinding,
  rightsFinding,
} from '../../../lib/discover/diagnosis.js';
import { guestsOf } from '../../../lib/discover/list-guests.js';
import { VmiError } from '../../../lib/errors.js';
import { styles } from '../../../lib/text/printable.js';
import { vmi } from '../cli/fake-guest.js';

const TRACE = 1n << 19n;

describe('vmi doctor', () => {
  it.each([
    ['v20.19.0', 'ok'],
    ['v24.1.0', 'ok'],
    ['v20.18.3', 'problem'],
    ['v18.20.0', 'problem'],
  ])('Node %s: %s', (release, status) => {
    expect(nodeFinding(release).status).toBe(status);
  });

  it.each<[[number, bigint, number | undefined], string, string]>([
    [[0, TRACE, undefined], 'ok', 'every guest on this host'],
    [[0, TRACE, 2], 'ok', 'every guest on this host'],
    [[0, TRACE, 3], 'warning', 'until the next boot'],
    [[1000, 0n, 0], 'warning', 'only guests of this user'],
    [[1000, 0n, undefined], 'warning', 'only guests of this user'],
    [[1000, 0n, 1], 'warning', 'no running guest'],
  ])('rights of uid, capabilities, scope %s', ([uid, effective, scope], status, detail) => {
    const finding = rightsFinding({ uid, effective, scope });
    expect(finding.status).toBe(status);
    expect(finding.detail).toContain(detail);
    expect(finding.fix === undefined).toBe(status === 'ok');
  });

  it('takes the fix for the addon from its own message', () => {
    const finding = addonFinding(() => {
      throw new VmiError(
        'VMI_ADDON_MISSING',
        "cannot load the native addon: not found at /x/vmi_addon.node. Build it with 'npx node-libvmi-build'",
      );
    });
    expect(finding).toEqual({
      check: 'addon',
      status: 'problem',
      detail: 'cannot load the native addon: not found at /x/vmi_addon.node',
      fix: "Build it with 'npx node-libvmi-build'",
    });
  });

  const report = {
    loaded: true,
    usable: true,
    path: '/usr/lib/libvmi.so.0.0.15',
    version: '0.15',
    tried: [],
    error: undefined,
    needed: [],
    missing: [],
    drivers: [
      { name: 'xen', present: true, missing: ['libxenstore.so'] },
      { name: 'kvm', present: false, missing: [] },
      { name: 'file', present: true, missing: [] },
    ],
  } as const;

  it('says which drivers of libvmi there are, and what they lack', () => {
    expect(libvmiFinding(report)).toMatchObject({
      status: 'warning',
      detail:
        'libvmi 0.15 (/usr/lib/libvmi.so.0.0.15), drivers xen, file, built without kvm; missing on this host: libxenstore.so for xen',
      fix: expect.stringContaining('https://libvmi.com/docs/'),
    });
    expect(libvmiFinding({ ...report, drivers: report.drivers.slice(1) })).toEqual({
      check: 'libvmi',
      status: 'ok',
      detail: 'libvmi 0.15 (/usr/lib/libvmi.so.0.0.15), drivers file, built without kvm',
    });
    const unclear = report.drivers.map((driver) => ({
      ...driver,
      present: undefined,
      missing: [],
    }));
    expect(
      libvmiFinding({
        ...report,
        version: undefined,
        drivers: unclear,
        missing: ['vmi_get_tsc_info'],
      }),
    ).toEqual({
      check: 'libvmi',
      status: 'ok',
      detail:
        'libvmi (/usr/lib/libvmi.so.0.0.15), drivers xen?, kvm?, file?, lacks vmi_get_tsc_info',
    });
  });

  it.each([
    [
      { ...report, usable: false, needed: ['vmi_pagecache_flush'] },
      '/usr/lib/libvmi.so.0.0.15 is too old, so no xen:, kvm: and libvmi: targets; all others work without it; it lacks vmi_pagecache_flush',
      'install libvmi 0.14 or later: https://libvmi.com/docs/gcode-install.html',
    ],
    [
      {
        ...report,
        usable: false,
        needed: ['vmi_init', 'vmi_b', 'vmi_c', 'vmi_d', 'vmi_e', 'vmi_f'],
      },
      '/usr/lib/libvmi.so.0.0.15 is no libvmi, so no xen:, kvm: and libvmi: targets; all others work without it; it lacks vmi_init, vmi_b, vmi_c, vmi_d and 2 more',
      'install libvmi 0.14 or later: https://libvmi.com/docs/gcode-install.html',
    ],
    [
      {
        ...report,
        loaded: false,
        usable: false,
        path: undefined,
        tried: [{ name: 'libvmi.so.0', error: 'libvmi.so.0: cannot open shared object file' }],
      },
      'libvmi was not found, so no xen:, kvm: and libvmi: targets; all others work without it (libvmi.so.0: cannot open shared object file)',
      'install libvmi 0.14 or later: https://libvmi.com/docs/gcode-install.html; or name its file in LIBVMI_LIBRARY',
    ],
    [undefined, 'not checked: that takes the addon', 'build the addon first'],
  ])('warns where libvmi cannot be used (%#)', (found, detail, fix) => {
    expect(libvmiFinding(found)).toEqual({ check: 'libvmi', status: 'warning', detail, fix });
  });

  it('counts the domains of libvirt', () => {
    expect(libvirtFinding('qemu:///system', { all: 3, running: 1 })).toEqual({
      check: 'libvirt',
      status: 'ok',
      detail: 'qemu:///system: 3 domains, 1 running',
    });
  });

  it('gives every finding that is not ok a fix', () => {
    const findings = [
      platformFinding('darwin', 'x64'),
      platformFinding('linux', 'arm64'),
      kvmFinding('absent'),
      kvmFinding('forbidden'),
      qemuFinding(undefined),
      libvirtFinding('qemu:///system', undefined),
      libvirtFinding(
        'qemu:///system',
        new VmiError('VMI_ATTACH', 'virsh list (qemu:///system): no right'),
      ),
      guestsFinding([{ readable: false }, { readable: true }]),
      cacheFinding('/nowhere', false),
    ];
    for (const finding of findings) {
      expect(finding.status).not.toBe('ok');
      expect(finding.fix).toBeTruthy();
    }
    expect(findingText(findings[4]!, styles(false))).toEqual([
      'warning  qemu     no QEMU on this host: there is no guest to attach but a memory image',
      '                  fix: sudo apt-get install qemu-system-x86',
    ]);
  });

  it('runs on this host', async () => {
    const { code, stdout } = await vmi(['doctor', '--json']);
    const findings = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(findings.map(({ check }) => check)).toEqual(
      expect.arrayContaining(['node', 'addon', 'libvmi', 'qemu', 'rights', 'kvm', 'cache']),
    );
    expect(code).toBe(findings.some(({ status }) => status === 'problem') ? 3 : 0);
  });
});

describe('vmi list', () => {
  it('gives the targets of a process', () => {
    expect(
      guestsOf(
        [
          {
            pid: process.pid,
            args: [],
            name: 'vm',
            libvirt: false,
            qmpSockets: ['/run/a:b'],
            memory: 512n << 20n,
            machine: 'q35',
          },
        ],
        [],
      ),
    ).toEqual([
      {
        pid: process.pid,
        domain: null,
        name: 'vm',
        memory: 536870912,
        machine: 'q35',
        qmpSockets: ['/run/a:b'],
        readable: true,
        targets: [`qemu:${process.pid}`, 'qmp:/run/a:b'],
      },
    ]);
  });

  it('takes no operand', async () => {
    expect(await vmi(['list', 'x'])).toMatchObject({
      code: 2,
      stderr: "vmi: unexpected argument 'x'; see 'vmi list --help'\n",
    });
  });
});
