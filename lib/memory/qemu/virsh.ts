import { execFile } from 'node:child_process';
import { VmiError } from '../../errors.js';
import type { AccessWords } from '../pause-guard.js';
import type { AbortOptions } from '../physical-memory.js';
import type { Monitor, MonitorAccess } from './monitor.js';

/** How long one run of virsh may take, milliseconds. */
const DEADLINE = 10_000;
/** Longest answer, bytes: `info mtree -f` of a big machine is some 100 KB. */
const MAX_ANSWER = 64 << 20;

interface QmpAnswer {
  readonly return?: unknown;
  readonly error?: { readonly desc?: string };
}

/** Why virsh failed, as far as what it prints tells; `failed` is everything else. */
export type VirshProblem =
  | 'absent'
  | 'unreachable'
  | 'forbidden'
  | 'gone'
  | 'unsupported'
  | 'late'
  | 'failed';

/** A run of virsh that failed. */
export class VirshError extends VmiError {
  readonly problem: VirshProblem;

  constructor(problem: VirshProblem, code: VmiError['code'], message: string, cause: unknown) {
    super(code, message, { cause });
    this.problem = problem;
  }
}

/**
 * Runs virsh and returns what it prints.
 * @param uri the connection, as in `virsh --connect`
 * @param args the command and its arguments, passed as they are
 * @throws {VirshError} `VMI_ATTACH`, `VMI_CLOSED` (the domain has ended), `VMI_UNSUPPORTED`,
 * `VMI_BUSY`
 * @throws {VmiError} `VMI_ABORTED`
 */
export function virsh(
  uri: string,
  args: readonly string[],
  { signal }: AbortOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      'virsh',
      ['--quiet', '--connect', uri, ...args],
      {
        encoding: 'utf8',
        // What virsh says is told apart by its words.
        env: { ...process.env, LC_ALL: 'C' },
        timeout: DEADLINE,
        killSignal: 'SIGKILL',
        maxBuffer: MAX_ANSWER,
        signal,
      },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else if (signal?.aborted === true) {
          reject(
            new VmiError('VMI_ABORTED', `virsh ${args[0]} was aborted`, { cause: signal.reason }),
          );
        } else reject(explain(uri, args[0] ?? '', error, stderr));
      },
    );
  });
}

/**
 * What virsh says (libvirt's src/rpc/virnetsocket.c, src/conf/virdomainobjlist.c, src/libvirt.c),
 * and what to do.
 */
const PROBLEMS: readonly (readonly [
  pattern: RegExp,
  problem: VirshProblem,
  code: VmiError['code'],
  advice: string,
])[] = [
  [
    /Permission denied|authentication (failed|unavailable|cancelled)|access denied|polkit/i,
    'forbidden',
    'VMI_ATTACH',
    'no right to use this libvirt: run as root, or join its group (sudo usermod -aG libvirt $USER, and log in again)',
  ],
  [
    /Domain not found|domain is not running|failed to get domain/i,
    'gone',
    'VMI_CLOSED',
    'the domain has ended',
  ],
  [
    /not supported by the connection driver|no connection driver available|domain is not of (required )?type/i,
    'unsupported',
    'VMI_UNSUPPORTED',
    'only domains of QEMU and KVM have a monitor',
  ],
  [
    /failed to connect to the hypervisor|Failed to connect socket|Connection refused|Cannot (recv|write) data/i,
    'unreachable',
    'VMI_ATTACH',
    'no libvirtd answers there: start it (sudo systemctl start libvirtd), or name another connection in LIBVIRT_DEFAULT_URI',
  ],
];

function explain(uri: string, command: string, error: Error, stderr: string): VirshError {
  const what = `virsh ${command} (${uri})`;
  const { code, killed } = error as NodeJS.ErrnoException & { killed?: boolean };
  if (code === 'ENOENT') {
    return new VirshError(
      'absent',
      'VMI_ATTACH',
      'virsh is not installed: sudo apt-get install libvirt-clients; or attach with qemu:PID, which needs no libvirt',
      error,
    );
  }
  const said = stderr
    .split('\n')
    .map((line) => line.replace(/^error: /, '').trim())
    .filter((line) => line !== '')
    .join('; ');
  if (killed === true && said === '') {
    return new VirshError('late', 'VMI_BUSY', `${what} did not end within ${DEADLINE} ms`, error);
  }
  const known = PROBLEMS.find(([pattern]) => pattern.test(said));
  if (known === undefined)
    return new VirshError(
      'failed',
      'VMI_ATTACH',
      `${what} failed: ${said || error.message}`,
      error,
    );
  const [, problem, errorCode, advice] = known;
  return new VirshError(problem, errorCode, `${what}: ${advice} (${said})`, error);
}

/**
 * The monitor of a libvirt domain, which libvirt holds and passes questions on to (`virsh
 * qemu-monitor-command`).
 */
export class LibvirtDomain implements MonitorAccess, Monitor {
  readonly #uri: string;
  readonly #uuid: string;
  readonly #alive: () => boolean;

  /**
   * @param uuid of the domain: virsh takes a name such as `10` for a number of something else
   * @param alive whether the process that was attached still runs; a restart has the same UUID
   */
  constructor(uri: string, uuid: string, alive: () => boolean = () => true) {
    this.#uri = uri;
    this.#uuid = uuid;
    this.#alive = alive;
  }

  get words(): AccessWords {
    return ['libvirt', this.#uri, this.#uuid];
  }

  async use<T>(work: (monitor: Monitor) => T | Promise<T>): Promise<T> {
    return work(this);
  }

  async execute(command: string, args?: object): Promise<unknown> {
    if (!this.#alive())
      throw new VmiError('VMI_CLOSED', 'the domain has ended, or was started anew: attach again');
    const request = JSON.stringify({ execute: command, arguments: args });
    const text = await virsh(this.#uri, [
      'qemu-monitor-command',
      '--domain',
      this.#uuid,
      '--cmd',
      request,
    ]);
    let answer: QmpAnswer;
    try {
      answer = JSON.parse(text) as QmpAnswer;
    } catch (error) {
      throw new VmiError('VMI_ATTACH', `virsh passed on no QMP answer: '${text.slice(0, 60)}'`, {
        cause: error,
      });
    }
    if (answer.error === undefined) return answer.return;
    throw new VmiError('VMI_UNSUPPORTED', `QEMU refused '${command}': ${answer.error.desc}`);
  }

  async human(commandLine: string): Promise<string> {
    return String(await this.execute('human-monitor-command', { 'command-line': commandLine }));
  }
}
