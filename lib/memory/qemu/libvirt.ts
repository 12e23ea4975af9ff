import { readFileSync } from 'node:fs';
import { VmiError } from '../../errors.js';
import { didYouMean } from '../../suggest.js';
import type { AbortOptions } from '../physical-memory.js';
import { processStart } from '../process/host-mappings.js';
import { type QemuProcess, qemuProcess, qemuProcesses } from './process.js';
import { LibvirtDomain, VirshError, virsh } from './virsh.js';

/** A libvirt domain on this host. */
export interface LibvirtTarget {
  /** Its name, or its UUID. */
  readonly name: string;
  /** The connection; `$LIBVIRT_DEFAULT_URI`, then `qemu:///system` when left out. */
  readonly uri?: string | undefined;
}

/** A domain as `virsh list` names it. */
export interface LibvirtName {
  readonly uuid: string;
  readonly name: string;
}

/** Where virsh, and libvmi's KVM driver, look for domains. */
const SYSTEM = 'qemu:///system';
/**
 * Where the system's libvirtd keeps the process ids of its QEMUs. libvirt src/util/virpidfile.c.
 */
const RUN_FOLDER = '/run/libvirt/qemu';
/** Names in a message. */
const MAX_NAMES = 8;

/** The connection that is meant where none is named. */
export function libvirtUri(env: NodeJS.ProcessEnv = process.env): string {
  return env.LIBVIRT_DEFAULT_URI || SYSTEM;
}

/** Every domain of a connection, or those that run. @throws {VirshError} */
export async function libvirtNames(
  uri: string,
  { running = false, signal }: AbortOptions & { readonly running?: boolean } = {},
): Promise<LibvirtName[]> {
  const which = running ? [] : ['--all'];
  return parseNames(await virsh(uri, ['list', ...which, '--uuid', '--name'], { signal }));
}

/**
 * Lines of `virsh list --uuid --name`: 36 characters, a space, and a name that may hold anything
 * but a newline.
 */
export function parseNames(text: string): LibvirtName[] {
  return [...text.matchAll(/^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) (.*)$/gm)].map(
    ([, uuid, name]) => ({ uuid: uuid!, name: name! }),
  );
}

/**
 * Finds a running domain, its QEMU and the way to its monitor.
 * @throws {VmiError} `VMI_ATTACH`: no virsh, no libvirtd, no right, no such domain, not running,
 * not on this host
 */
export async function findDomain(
  target: LibvirtTarget,
  options: AbortOptions = {},
): Promise<{ readonly process: QemuProcess; readonly access: LibvirtDomain }> {
  const uri = target.uri ?? libvirtUri();
  await checkLocal(uri, options);
  const what = `libvirt:${target.name}`;
  const names = await libvirtNames(uri, options).catch((error: unknown) => {
    throw error instanceof VirshError
      ? new VmiError(error.code, `${what}: ${error.message}`, { cause: error })
      : error;
  });
  const domain =
    names.find(({ name }) => name === target.name) ??
    names.find(({ uuid }) => uuid === target.name);
  if (domain === undefined)
    throw new VmiError('VMI_ATTACH', `${what}: ${unknownDomain(uri, target.name, names)}`);
  const process = processOf(domain, uri);
  if (process === undefined) {
    const state = (await virsh(uri, ['domstate', '--domain', domain.uuid], options)).trim();
    const why = /^(shut off|crashed|no state)/.test(state)
      ? `the domain is not running (${state}): virsh start`
      : `the domain is ${state}, but this process does not see its QEMU: run on the host itself, as root`;
    throw new VmiError('VMI_ATTACH', `${what}: ${why}`);
  }
  const start = processStart(process.pid);
  const alive = () => start !== undefined && processStart(process.pid) === start;
  return { process, access: new LibvirtDomain(uri, domain.uuid, alive) };
}

/** Whether a domain of the system's libvirt is suspended, as far as virsh can tell. */
export async function isSuspended(name: string): Promise<boolean> {
  try {
    const domain = (await libvirtNames(SYSTEM)).find((one) => one.name === name);
    if (domain === undefined) return false;
    return (await virsh(SYSTEM, ['domstate', '--domain', domain.uuid])).trim() === 'paused';
  } catch {
    return false;
  }
}

function unknownDomain(uri: string, name: string, names: readonly LibvirtName[]): string {
  const known = names.map((one) => one.name).sort();
  if (known.length === 0) return `${uri} has no domain`;
  const near = didYouMean(name, known);
  if (near !== '') return `${uri} has no domain of this name${near}`;
  const rest = known.length > MAX_NAMES ? ` and ${known.length - MAX_NAMES} more` : '';
  return `${uri} has no domain of this name; it has ${known.slice(0, MAX_NAMES).join(', ')}${rest}`;
}

/**
 * Refuses a libvirt of another host: guest memory is read from a process of this one.
 * An alias of libvirt.conf is looked up. https://libvirt.org/uri.html, "Specifying URIs to
 * libvirt".
 */
async function checkLocal(uri: string, options: AbortOptions): Promise<void> {
  const full = uri.includes('://') ? uri : (await virsh(uri, ['uri'], options)).trim();
  if (/^\w+(\+unix)?:\/\/\//.test(full)) return;
  throw new VmiError(
    'VMI_ATTACH',
    `the libvirt connection '${full}' leads to another host, or may: memory is read on the guest's own host, through qemu:///system or qemu:///session (LIBVIRT_DEFAULT_URI)`,
  );
}

/**
 * The QEMU of a domain: the process of libvirt's pid file if it has that UUID, else the only one
 * that has it.
 */
function processOf({ uuid, name }: LibvirtName, uri: string): QemuProcess | undefined {
  const recorded = uri === SYSTEM ? recordedProcess(name) : undefined;
  if (recorded?.uuid === uuid) return recorded;
  const found = qemuProcesses().filter((process) => process.uuid === uuid);
  if (found.length > 1) {
    const pids = found.map(({ pid }) => `qemu:${pid}`).join(', ');
    throw new VmiError(
      'VMI_ATTACH',
      `several processes have the UUID of libvirt:${name}; attach with ${pids}`,
    );
  }
  return found[0];
}

function recordedProcess(name: string): QemuProcess | undefined {
  try {
    return qemuProcess(Number(readFileSync(`${RUN_FOLDER}/${name}.pid`, 'utf8')));
  } catch {
    return undefined;
  }
}
