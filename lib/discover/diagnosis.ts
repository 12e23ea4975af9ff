import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { addon } from '../addon.js';
import { VmiError } from '../errors.js';
import { mayUse, readHostFile } from '../host.js';
import { cacheFolder } from '../kernel/cache.js';
import { type LibvmiReport, libvmiReport } from '../libvmi/report.js';
import { INSTALLATION_GUIDE, MINIMUM_VERSION } from '../libvmi/session.js';
import { type XenHost, xenHost } from '../memory/libvmi/xen-domains.js';
import { xenEvents } from '../memory/libvmi/xen-events.js';
import { libvirtNames, libvirtUri } from '../memory/qemu/libvirt.js';
import { VirshError } from '../memory/qemu/virsh.js';
import { checkObject, checkText } from '../options.js';
import { eventsFinding } from './events.js';
import type { Finding } from './finding.js';
import { listGuests } from './list-guests.js';

/** capabilities(7), CAP_SYS_PTRACE. */
const CAP_SYS_PTRACE = 19n;
/** Lowest Node release that package.json names. */
const NODE = [20, 19] as const;

export function nodeFinding(release: string): Finding {
  const [major = 0, minor = 0] = release.replace(/^v/, '').split('.').map(Number);
  const enough = major > NODE[0] || (major === NODE[0] && minor >= NODE[1]);
  const detail = `Node ${release}`;
  if (enough) return { check: 'node', status: 'ok', detail };
  return {
    check: 'node',
    status: 'problem',
    detail,
    fix: `install Node ${NODE.join('.')} or later`,
  };
}

export function platformFinding(platform: string, arch: string): Finding {
  const detail = `${platform} ${arch}`;
  if (platform === 'linux' && arch === 'x64') return { check: 'host', status: 'ok', detail };
  if (platform === 'linux' && arch === 'arm64') {
    return {
      check: 'host',
      status: 'warning',
      detail,
      fix: 'on arm64, attach to images (image:PATH) only',
    };
  }
  return { check: 'host', status: 'problem', detail, fix: 'use a Linux host, x86-64 or arm64' };
}

export function addonFinding(load: () => unknown = addon): Finding {
  try {
    load();
    return { check: 'addon', status: 'ok', detail: 'the native addon loads' };
  } catch (error) {
    const [detail = '', ...rest] = (error as Error).message.split(/(?<=[^.])\. (?=Build)/);
    return {
      check: 'addon',
      status: 'problem',
      detail,
      fix: rest.join(' ') || "npx node-libvmi-build (in a checkout: 'npm run build')",
    };
  }
}

/**
 * Whether this user may read a QEMU it does not own, or even one it does. ptrace(2),
 * Documentation/admin-guide/LSM/Yama.rst.
 */
export function rightsFinding(host: {
  readonly uid: number;
  readonly effective: bigint;
  /** kernel.yama.ptrace_scope; `undefined` where Yama is not built in. */
  readonly scope: number | undefined;
}): Finding {
  const trace = ((host.effective >> CAP_SYS_PTRACE) & 1n) === 1n;
  const who = `uid ${host.uid}, CAP_SYS_PTRACE ${trace ? 'yes' : 'no'}, kernel.yama.ptrace_scope ${host.scope ?? 'absent'}`;
  if (host.scope === 3) {
    return {
      check: 'rights',
      status: 'warning',
      detail: `${who}: no process may be read until the next boot`,
      fix: 'boot with kernel.yama.ptrace_scope below 3, or attach to an image (image:PATH)',
    };
  }
  if (trace)
    return {
      check: 'rights',
      status: 'ok',
      detail: `${who}: every guest on this host may be read`,
    };
  if ((host.scope ?? 0) === 0) {
    return {
      check: 'rights',
      status: 'warning',
      detail: `${who}: only guests of this user may be read`,
      fix: 'run vmi as root (sudo) for guests of other users',
    };
  }
  return {
    check: 'rights',
    status: 'warning',
    detail: `${who}: no running guest may be read`,
    fix: 'run vmi as root (sudo), or allow it for your own guests: sudo sysctl kernel.yama.ptrace_scope=0',
  };
}

export function kvmFinding(state: 'usable' | 'forbidden' | 'absent'): Finding {
  const check = 'kvm';
  switch (state) {
    case 'usable':
      return { check, status: 'ok', detail: '/dev/kvm can be used' };
    case 'forbidden':
      return {
        check,
        status: 'warning',
        detail:
          '/dev/kvm belongs to others: guests that this user starts are emulated (attaching works all the same)',
        fix: 'sudo usermod -aG kvm $USER, and log in again',
      };
    case 'absent':
      return {
        check,
        status: 'warning',
        detail: 'no /dev/kvm: guests that start here are emulated (attaching works all the same)',
        fix: "enable virtualisation in the host's firmware or its own hypervisor, then: sudo modprobe kvm_intel (or kvm_amd)",
      };
  }
}

/** @param report `undefined`: there is no addon to ask */
export function libvmiFinding(report: LibvmiReport | undefined): Finding {
  const check = 'libvmi';
  if (report === undefined) {
    return {
      check,
      status: 'warning',
      detail: 'not checked: that takes the addon',
      fix: 'build the addon first',
    };
  }
  const without = 'so no xen:, kvm: and libvmi: targets; all others work without it';
  const install = `install libvmi ${MINIMUM_VERSION} or later: ${INSTALLATION_GUIDE}`;
  if (!report.loaded) {
    const tried = report.tried.map(({ name, error = 'cannot be loaded' }) =>
      error.startsWith(`${name}: `) ? error : `${name}: ${error}`,
    );
    return {
      check,
      status: 'warning',
      detail: `libvmi was not found, ${without} (${tried.join('; ')})`,
      fix: `${install}; or name its file in LIBVMI_LIBRARY`,
    };
  }
  if (!report.usable) {
    // Every release has this one.
    const what = report.needed.includes('vmi_init') ? 'is no libvmi' : 'is too old';
    return {
      check,
      status: 'warning',
      detail: `${report.path} ${what}, ${without}; it lacks ${listed(report.needed)}`,
      fix: install,
    };
  }
  const { missing, drivers } = report;
  const lacking = drivers.flatMap((driver) =>
    driver.present === false
      ? []
      : driver.missing.map((library) => `${library} for ${driver.name}`),
  );
  const built = drivers.filter(({ present }) => present !== false);
  const absent = drivers.filter(({ present }) => present === false);
  const name = report.version === undefined ? 'libvmi' : `libvmi ${report.version}`;
  const parts = [
    `${name} (${report.path})`,
    `drivers ${built.map(({ name, present }) => (present === undefined ? `${name}?` : name)).join(', ') || 'none'}`,
    ...(absent.length === 0 ? [] : [`built without ${absent.map(({ name }) => name).join(', ')}`]),
    ...(missing.length === 0 ? [] : [`lacks ${listed(missing)}`]),
  ];
  if (lacking.length === 0) return { check, status: 'ok', detail: parts.join(', ') };
  return {
    check,
    status: 'warning',
    detail: `${parts.join(', ')}; missing on this host: ${lacking.join(', ')}`,
    fix: `install these libraries to use that driver; the other drivers work. What each needs: ${INSTALLATION_GUIDE}`,
  };
}

/**
 * What `xen:NAME` lacks on this host.
 * @param report `undefined`: there is no addon to ask
 */
export function xenFinding(host: XenHost, report: LibvmiReport | undefined): Finding {
  const check = 'xen';
  const warning = (detail: string, fix: string): Finding => ({
    check,
    status: 'warning',
    detail,
    fix,
  });
  if (!host.xen)
    return { check, status: 'ok', detail: 'this host runs on no Xen: xen: targets work in dom0' };
  if (!host.control) {
    return warning(
      'this host is a guest of Xen, or xenfs is not mounted: domains can be read in dom0 only',
      'in dom0: sudo modprobe xenfs && sudo mount -t xenfs xenfs /proc/xen',
    );
  }
  if (host.privcmd === 'absent')
    return warning('no /dev/xen/privcmd: no domain can be read', 'sudo modprobe xen-privcmd');
  if (host.privcmd === 'forbidden')
    return warning(
      '/dev/xen/privcmd belongs to root: no domain can be read',
      'run vmi as root (sudo)',
    );
  const driver = report?.usable ? report.drivers.find(({ name }) => name === 'xen') : undefined;
  if (driver === undefined)
    return warning('dom0 of Xen, but xen: targets need libvmi', 'see libvmi in this report');
  if (driver.present === false) {
    return warning(
      'dom0 of Xen, but this libvmi was built without its Xen driver',
      `build it where Xen's headers are (apt-get install libxen-dev): ${INSTALLATION_GUIDE}`,
    );
  }
  if (driver.missing.length > 0) {
    return warning(
      `dom0 of Xen, but libvmi opens ${listed(driver.missing)} by that very name, and this host has no such file`,
      'sudo apt-get install libxen-dev (the names without a version come with the development package)',
    );
  }
  return { check, status: 'ok', detail: 'dom0 of Xen: its domains can be read (xen:NAME)' };
}

/** Names that stay readable where there are many. */
function listed(names: readonly string[], most = 4): string {
  return names.length <= most
    ? names.join(', ')
    : `${names.slice(0, most).join(', ')} and ${names.length - most} more`;
}

export function qemuFinding(found: string | undefined): Finding {
  if (found !== undefined) return { check: 'qemu', status: 'ok', detail: found };
  return {
    check: 'qemu',
    status: 'warning',
    detail: 'no QEMU on this host: there is no guest to attach but a memory image',
    fix: 'sudo apt-get install qemu-system-x86',
  };
}

/** What virsh said of the domains that run, or why it failed; `undefined`: there is no virsh. */
export function libvirtFinding(
  uri: string,
  state: { readonly running: number; readonly all: number } | VmiError | undefined,
): Finding {
  const check = 'libvirt';
  if (state === undefined) {
    return {
      check,
      status: 'warning',
      detail: 'no virsh on this host, so no libvirt: targets; all others work without it',
      fix: 'sudo apt-get install libvirt-clients',
    };
  }
  if (!(state instanceof VmiError)) {
    const domains = `${state.all} domain${state.all === 1 ? '' : 's'}`;
    return { check, status: 'ok', detail: `${uri}: ${domains}, ${state.running} running` };
  }
  return {
    check,
    status: 'warning',
    detail: `no libvirt: targets: ${state.message}`,
    fix: "attach with qemu:PID ('vmi list'), which needs no libvirt",
  };
}

export function guestsFinding(guests: readonly { readonly readable: boolean }[]): Finding {
  const readable = guests.filter((guest) => guest.readable).length;
  const detail =
    guests.length === 0
      ? 'no guest runs here'
      : `${guests.length} run${guests.length === 1 ? 's' : ''} here, ${readable} readable`;
  if (readable === guests.length) return { check: 'guests', status: 'ok', detail };
  return {
    check: 'guests',
    status: 'warning',
    detail,
    fix: "run vmi as root (sudo), or as the guests' user",
  };
}

export function cacheFinding(folder: string, writable: boolean): Finding {
  if (writable) return { check: 'cache', status: 'ok', detail: folder };
  return {
    check: 'cache',
    status: 'warning',
    detail: `${folder} cannot be written: every attach looks for the kernel anew`,
    fix: 'set NODE_LIBVMI_CACHE to a folder that you may write',
  };
}

/**
 * Looks at this host: what attaching would find or lack, and what to do about it. Touches no guest.
 * What fails is a finding.
 *
 * @param env where `PATH`, `LIBVIRT_DEFAULT_URI` and `NODE_LIBVMI_CACHE` are looked up; default:
 *   this process's
 * @returns one finding a check, always the same checks in the same order
 * @throws {TypeError} `env` is no environment
 * @example
 * (await diagnose()).filter(({ status }) => status !== 'ok').map(({ fix }) => fix)
 */
export async function diagnose(env: NodeJS.ProcessEnv = process.env): Promise<Finding[]> {
  for (const [name, value] of Object.entries(checkObject(env, 'env')))
    checkText(value, `env.${name}`);
  const status = readHostFile('/proc/self/status') ?? '';
  const scope = readHostFile('/proc/sys/kernel/yama/ptrace_scope');
  const folder = cacheFolder(env);
  const report = libvmi();
  return [
    nodeFinding(process.version),
    platformFinding(process.platform, process.arch),
    addonFinding(),
    libvmiFinding(report),
    xenFinding(xenHost(), report),
    eventsFinding(xenEvents()),
    qemuFinding(qemuVersion(env)),
    libvirtFinding(libvirtUri(env), await libvirtState(env)),
    rightsFinding({
      uid: process.geteuid?.() ?? -1,
      effective: BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`),
      scope: scope === undefined ? undefined : Number(scope),
    }),
    guestsFinding(listGuests()),
    kvmFinding(!existsSync('/dev/kvm') ? 'absent' : mayUse('/dev/kvm') ? 'usable' : 'forbidden'),
    cacheFinding(folder, mayUse(existingPart(folder))),
  ];
}

function libvmi(): LibvmiReport | undefined {
  try {
    return libvmiReport();
  } catch {
    return undefined;
  }
}

async function libvirtState(env: NodeJS.ProcessEnv) {
  const uri = libvirtUri(env);
  try {
    const [all, running] = [await libvirtNames(uri), await libvirtNames(uri, { running: true })];
    return { all: all.length, running: running.length };
  } catch (error) {
    if (error instanceof VirshError && error.problem === 'absent') return undefined;
    if (error instanceof VmiError) return error;
    throw error;
  }
}

function qemuVersion(env: NodeJS.ProcessEnv): string | undefined {
  const folders = [...(env.PATH ?? '').split(':'), '/usr/libexec'].filter(
    (folder) => folder !== '',
  );
  for (const name of ['qemu-system-x86_64', 'qemu-kvm']) {
    const path = folders.map((folder) => join(folder, name)).find((file) => existsSync(file));
    if (path === undefined) continue;
    try {
      const text = execFileSync(path, ['--version'], {
        encoding: 'utf8',
        timeout: 5000,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      return `${text.split('\n', 1)[0]} (${path})`;
    } catch {
      // It does not run: not this one.
    }
  }
  return undefined;
}

function existingPart(folder: string): string {
  return existsSync(folder) || folder === dirname(folder) ? folder : existingPart(dirname(folder));
}
