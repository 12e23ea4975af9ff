import { wrap } from '../../address.js';
import { tryAnswer } from '../try-answer.js';
import { type Doubt, doubt, type LayoutCase, mostly } from './case.js';
import { isPointer } from './guest-words.js';

/** CPUs that are looked at. */
const CPUS = 8;
/** `cpu_tlbstate.loaded_mm` in the middle of a switch. arch/x86/include/asm/tlbflush.h. */
const LOADED_MM_SWITCHING = 1n;
/**
 * What every kernel for x86-64 requires, a PV guest of Xen too: FPU, MSR, PAE, CX8, CMOV, FXSR, SSE
 * and SSE2 in the first word of features, LM in the second.
 * arch/x86/include/asm/required-features.h.
 */
export const FIRST_FEATURES = 0x0700_8161;
export const SECOND_FEATURES = 0x2000_0000;
/** 1990 and 2200, in seconds since 1970: what a guest's clock may show. */
const CLOCK = [631_152_000n, 7_258_118_400n] as const;

/** Each CPU's loaded address space: none while it switches, or one that maps the kernel. */
export function loadedMms(of: LayoutCase): Doubt | undefined {
  const at = of.checked.symbols.find('cpu_tlbstate');
  const pgd = of.offset('mm_struct.pgd');
  const member = of.offset('tlb_state.loaded_mm');
  if (at === undefined || member === undefined || pgd === undefined) return undefined;
  const bases = cpuBases(of);
  const isLoaded = (base: bigint, offset: number) => {
    const mm = of.words.u64(wrap(at + base + BigInt(offset)));
    // A CPU that was brought up and never used has the initial value, NULL or init_mm.
    if (mm === undefined || mm === LOADED_MM_SWITCHING) return undefined;
    return isPointer(mm) && of.directories.has(of.words.u64(mm + BigInt(pgd)));
  };
  const name = 'tlb_state.loaded_mm';
  if (!mostly(bases, (base) => isLoaded(base, member))) {
    return doubt(of, 'CPUs have no address space there', name);
  }
  // Behind it comes that of the last user, which is the same for most of the time.
  const isSecond = member >= 8 && bases.some((base) => isLoaded(base, member - 8) === true);
  if (!isSecond || !of.strict) return undefined;
  return doubt(of, `at ${member - 8} there is one before it: this is last_user_mm`, name);
}

/** Each CPU's current task: one of this kernel's, by its `struct pid`, or an idle task. */
export function currentTasks(of: LayoutCase): Doubt | undefined {
  const at = of.checked.symbols.find('pcpu_hot');
  const member = of.offset('pcpu_hot.current_task');
  const known = of.all('task_struct.comm', 'task_struct.pid', 'task_struct.mm');
  if (at === undefined || member === undefined || known === undefined) return undefined;
  const [comm, pid] = known;
  const sampled = new Set(of.tasks.map(({ address }) => address));
  const fits = mostly(cpuBases(of), (base) => {
    const task = of.words.u64(wrap(at + base + BigInt(member)));
    if (!isPointer(task)) return false;
    if (sampled.has(task)) return true;
    const name = of.words.bytes(task + BigInt(comm), 16)?.toString('latin1');
    const number = of.words.u32(task + BigInt(pid));
    return number === 0 ? name?.startsWith('swapper/') === true : isNumbered(of, task, number);
  });
  return fits ? undefined : doubt(of, 'CPUs have no task there', 'pcpu_hot.current_task');
}

/** Whether a task's `struct pid` names this PID; `undefined` where that cannot be told. */
function isNumbered(of: LayoutCase, task: bigint, pid: number | undefined): boolean | undefined {
  const known = of.all('task_struct.thread_pid', 'pid.numbers', 'upid.nr');
  if (known === undefined) return undefined;
  const [threadPid, numbers, nr] = known;
  const structPid = of.words.u64(task + BigInt(threadPid));
  return (
    pid !== undefined &&
    isPointer(structPid) &&
    of.words.u32(structPid + BigInt(numbers + nr)) === pid
  );
}

/** The first CPU's features: what every processor of this kind has. */
export function cpuFeatures(of: LayoutCase): Doubt | undefined {
  const at = of.checked.symbols.find('boot_cpu_data');
  const member = of.offset('cpuinfo_x86.x86_capability');
  if (at === undefined || member === undefined) return undefined;
  const has = (word: number, features: number) =>
    ((of.words.u32(at + BigInt(member + word * 4)) ?? 0) & features) === features;
  if (has(0, FIRST_FEATURES) && has(1, SECOND_FEATURES)) return undefined;
  return doubt(of, 'the CPU would lack what all have', 'cpuinfo_x86.x86_capability');
}

/** The wall clock: some time between 1990 and 2200. Guests exist whose clock starts in 1970. */
export function wallClock(of: LayoutCase): Doubt | undefined {
  const { symbols } = of.checked;
  const member = of.offset('timekeeper.xtime_sec');
  const core = symbols.find('tk_core') ?? symbols.find('timekeeper_data');
  if (!of.strict || core === undefined || member === undefined) return undefined;
  const keeper = of.offset('tk_data.timekeeper') ?? 8;
  const time = of.words.u64(core + BigInt(keeper + member)) ?? 0n;
  if (time > CLOCK[0] && time < CLOCK[1]) return undefined;
  const names = ['tk_data.timekeeper', 'timekeeper.xtime_sec'] as const;
  return doubt(of, `the clock would show ${time} s`, ...names.filter((one) => of.offsets.has(one)));
}

/** What to add to the address of a per-cpu variable, for the first CPUs that are online. */
function cpuBases(of: LayoutCase): bigint[] {
  const { cpus } = of.checked;
  const online = tryAnswer(() => cpus.online().slice(0, CPUS)) ?? [];
  return online.map((cpu) => cpus.perCpuOffset(cpu));
}
