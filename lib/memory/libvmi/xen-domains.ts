import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mayUse, readHostFile } from '../../host.js';

/** A domain of the Xen that this host is the dom0 of. */
export interface XenDomain {
  readonly id: number;
  /** Any text: it may hold colons and spaces. */
  readonly name: string;
  /** `pv`, `pvh`, `hvm`; `undefined` where only xenstore tells. */
  readonly type: string | undefined;
  /** Bytes of RAM it is to have. */
  readonly memory: bigint | undefined;
}

/** What this host is to Xen. */
export interface XenHost {
  /** Whether it runs on Xen at all. */
  readonly xen: boolean;
  /** Whether it is the control domain. */
  readonly control: boolean;
  /** Why Xen's device cannot be used: `absent`, or another user's. */
  readonly privcmd: 'usable' | 'forbidden' | 'absent';
}

/** Milliseconds Xen's tools may take: without its daemon, xl waits for ever. */
const PATIENCE = 5000;
/** Folders that a user's PATH may lack. */
const SYSTEM_FOLDERS = '/usr/sbin:/sbin:/usr/bin:/bin';
const MAX_OUTPUT = 64 << 20;

/**
 * Looks at what the kernel says of Xen. Documentation/ABI/stable/sysfs-hypervisor-xen;
 * drivers/xen/xenfs.
 */
export function xenHost(): XenHost {
  const device = '/dev/xen/privcmd';
  return {
    xen: readHostFile('/sys/hypervisor/type')?.trim() === 'xen',
    control: (readHostFile('/proc/xen/capabilities') ?? '').split(/\s+/).includes('control_d'),
    privcmd: !existsSync(device) ? 'absent' : mayUse(device) ? 'usable' : 'forbidden',
  };
}

/**
 * The guests of the Xen that this host is the dom0 of, by number; none elsewhere. Asks xl, or
 * xenstore-ls where there is no xl.
 */
export function xenDomains(
  host: XenHost = xenHost(),
  env: NodeJS.ProcessEnv = process.env,
): XenDomain[] {
  if (!host.xen || !host.control) return [];
  const list = ask('xl', ['list', '-l'], env);
  const domains = list === undefined ? undefined : parseXlList(list);
  return domains ?? parseXenstore(ask('xenstore-ls', ['-f', '/local/domain'], env) ?? '');
}

/** Guests in the output of `xl list -l`; `undefined` when it is none. */
export function parseXlList(text: string): XenDomain[] | undefined {
  let rows: unknown;
  try {
    rows = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(rows)) return undefined;
  return guests(
    rows.map((row) => {
      const { domid, config } = row ?? {};
      const memory = config?.b_info?.target_memkb;
      return {
        id: Number(domid),
        name: String(config?.c_info?.name ?? ''),
        type: config?.c_info?.type,
        memory: Number.isSafeInteger(memory) ? BigInt(memory) * 1024n : undefined,
      };
    }),
  );
}

/**
 * Guests in the output of `xenstore-ls -f /local/domain`, which writes what is not printable as
 * `\ooo`.
 */
export function parseXenstore(text: string): XenDomain[] {
  const names = new Map<number, string>();
  const memory = new Map<number, bigint>();
  for (const line of text.split('\n')) {
    const [, id, key, value = ''] =
      /^\/local\/domain\/(\d+)\/(name|memory\/target) = "(.*)"$/.exec(line) ?? [];
    if (key === 'name') names.set(Number(id), unescaped(value));
    else if (key !== undefined && /^\d+$/.test(value))
      memory.set(Number(id), BigInt(value) * 1024n);
  }
  return guests(
    [...names].map(([id, name]) => ({ id, name, type: undefined, memory: memory.get(id) })),
  );
}

/** Without dom0, which cannot look at itself, and those that are being made or die. */
function guests(domains: readonly XenDomain[]): XenDomain[] {
  return domains.filter(({ id, name }) => id > 0 && name !== '').sort((a, b) => a.id - b.id);
}

/** tools/xenstore/utils.c, sanitise_value. */
function unescaped(text: string): string {
  const bytes = text.replace(
    /\\(?:([0-7]{3})|([\\nrt"]))/g,
    (_, octal: string | undefined, letter: string) =>
      octal === undefined
        ? ({ n: '\n', r: '\r', t: '\t' }[letter] ?? letter)
        : String.fromCharCode(Number.parseInt(octal, 8)),
  );
  // Bytes above 0x7f come one by one.
  return /[\x80-\xff]/.test(bytes) ? Buffer.from(bytes, 'latin1').toString() : bytes;
}

function ask(program: string, args: readonly string[], env: NodeJS.ProcessEnv): string | undefined {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      timeout: PATIENCE,
      maxBuffer: MAX_OUTPUT,
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...env, PATH: `${env.PATH ?? ''}:${SYSTEM_FOLDERS}` },
    });
  } catch {
    return undefined;
  }
}
