import * as library from '../helpers/index.js';
import {
  type Guest,
  type Pattern,
  type Place,
  type SearchHit,
  type StructObject,
  Task,
  VmiError,
} from '../index.js';

/** A task by PID, as the list has it, or as its `task_struct`. */
export type Who = number | Task | StructObject;

/** A record may have several lines, whose ends are escaped as `\\n`; a backslash is two. */
function linesOf(text: string): string[] {
  return text.replace(/\\\\|\\n/g, (found) => (found === '\\n' ? '\n' : found)).split('\n');
}

/** @throws {VmiError} `VMI_UNSUPPORTED`: a kernel thread, or a task that has exited */
function addressSpaceOf(task: StructObject): StructObject {
  const mm = task.mm as StructObject | null;
  if (mm !== null) return mm;
  throw new VmiError('VMI_UNSUPPORTED', `task ${task.pid} has no address space of its own`);
}

/**
 * What the REPL and scripts can ask of a kernel without naming it each time: values by their types,
 * and the helpers of `node-libvmi/helpers` with the guest filled in. Tasks go by PID as well.
 */
export function explorer(guest: Guest) {
  const { objects } = guest;
  const taskOf = (who: Who): StructObject => {
    if (typeof who === 'number') return guest.task(who).object;
    return who instanceof Task ? who.object : who;
  };
  const mmOf = (who: Who) => addressSpaceOf(taskOf(who));
  return {
    objects,
    object: (type: string, place: Place) => guest.object(type, place),
    variable: (name: string, type?: string) => guest.variable(name, type),
    perCpu: (name: string, cpu: number, type?: string) => guest.perCpu(name, cpu, type),
    sizeof: (type: string) => objects.sizeof(type),
    offsetof: (type: string, path: string) => objects.offsetof(type, path),
    containerOf: (place: Place, type: string, member: string) =>
      objects.containerOf(place, type, member),
    constant: (name: string) => objects.constant(name),
    list: library.list,
    hlist: library.hlist,
    llist: library.llist,
    rbtree: library.rbtree,
    xarray: library.xarray,
    idr: library.idr,
    mapleTree: library.mapleTree,
    bitmap: library.bitmap,
    cpumask: library.cpumask,
    stack: (pid: number) => guest.task(pid).stack(),
    processes: () => [...library.processes(objects)],
    parents: (who: Who) => library.parents(taskOf(who)),
    children: (who: Who) => [...library.children(taskOf(who))],
    threads: (who: Who) => [...library.threads(taskOf(who))],
    cmdline: (who: Who) => library.cmdline(objects, taskOf(who)),
    environ: (who: Who) => library.environ(objects, taskOf(who)),
    exe: (who: Who) => library.exe(taskOf(who)),
    cwd: (who: Who) => library.cwd(taskOf(who)),
    root: (who: Who) => library.root(taskOf(who)),
    files: (who: Who) => [...library.files(taskOf(who))],
    vmas: (who: Who) => [...library.vmas(mmOf(who))],
    rss: (who: Who) => library.rss(objects, mmOf(who)),
    pageState: (who: Who, address: bigint) => library.pageState(objects, mmOf(who), address),
    namespaces: (who: Who) => library.namespaces(taskOf(who)),
    cgroup: (who: Who) => library.cgroup(taskOf(who)),
    mounts: (who: Who = 1) => [...library.mounts(taskOf(who))],
    modules: () => [...library.modules(objects)],
    sockets: () => [...library.sockets(objects)],
    /** Lines as dmesg(1) prints them; `node-libvmi/helpers` has the records. */
    dmesg: () =>
      [...library.dmesg(objects)].flatMap(({ time, text }) => {
        const when = `[${(Number(time / 1000n) / 1e6).toFixed(6).padStart(12)}]`;
        return linesOf(text).map((line) => `${when} ${line}`);
      }),
    /** What a kernel address is; with a PID, what an address of that process is. */
    whatIs: (address: bigint, pid?: number) =>
      guest.whatIs(address, pid === undefined ? {} : { pid }),
    /** The first places of a pattern in RAM, or in a process. */
    search: async (pattern: Pattern, pid?: number, max = 20) => {
      const hits: SearchHit[] = [];
      for await (const hit of guest.search(pattern, pid === undefined ? {} : { pid })) {
        if (hits.push(hit) >= max) break;
      }
      return hits;
    },
    slabCaches: () => [...library.slabCaches(objects)],
    commandLine: () => library.commandLine(objects),
    loadAverage: () => library.loadAverage(objects),
    interrupts: () => [...library.interrupts(objects)],
    runQueues: () => library.runQueues(objects),
  };
}
