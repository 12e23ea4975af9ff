import { wrap } from '../../address.js';
import { tryAnswer } from '../try-answer.js';
import { FIRST_FEATURES, SECOND_FEATURES } from './cpu-proofs.js';
import { isPointer } from './guest-words.js';
import { type Inference, nearly } from './inference.js';

/** CPUs that are looked at, and bytes of their variables that are searched. */
const CPUS = 8;
const SEARCHED = 128;
const FEATURES_SEARCHED = 256;
/** `cpu_tlbstate.loaded_mm` in the middle of a switch. arch/x86/include/asm/tlbflush.h. */
const LOADED_MM_SWITCHING = 1n;

/** Bits that no processor sets: EDX of CPUID 1 and of CPUID 0x80000001. SDM vol. 2A, CPUID. */
const NEVER_FIRST = 0x0010_0400;
const NEVER_SECOND = 0x1000_0000;

/** What each CPU has loaded and runs, and what it can do. */
export function inferCpus(of: Inference): void {
  const { symbols, cpus } = of.from;
  const online = tryAnswer(() => cpus.online().slice(0, CPUS)) ?? [];
  const bases = online.map((cpu) => cpus.perCpuOffset(cpu));
  const tlb = symbols.find('cpu_tlbstate');
  const pgd = of.offset('mm_struct.pgd');
  if (tlb !== undefined && pgd !== undefined) {
    const isLoaded = (base: bigint, at: number) => {
      const mm = of.words.u64(wrap(tlb + base + BigInt(at)));
      if (mm === LOADED_MM_SWITCHING) return true;
      return isPointer(mm) && of.directories.has(of.words.u64(mm + BigInt(pgd)));
    };
    const places = multiples(8).filter((at) => nearly(bases, (base) => isLoaded(base, at)));
    // Behind it comes the address space that was last used; `tlb_state` is never shuffled.
    const [first, second] = places;
    if (places.length === 2 && second! - first! === 8)
      of.place('tlb_state.loaded_mm', first!, 'by order');
    else of.settle('tlb_state.loaded_mm', places);
  }
  const hot = symbols.find('pcpu_hot');
  if (hot !== undefined) {
    const known = new Set(of.tasks.map(({ address }) => address));
    const runs = (base: bigint, at: number) => {
      const task = of.words.u64(wrap(hot + base + BigInt(at)));
      return isPointer(task) && (known.has(task) || isIdle(of, task));
    };
    of.settle(
      'pcpu_hot.current_task',
      multiples(8).filter((at) => nearly(bases, (base) => runs(base, at))),
    );
  }
  inferFeatures(of);
}

/** Whether an address is that of a CPU's idle task, by its name. */
function isIdle(of: Inference, task: bigint): boolean {
  const comm = of.offset('task_struct.comm');
  if (comm === undefined) return false;
  return of.words.bytes(task + BigInt(comm), 8)?.toString('latin1') === 'swapper/';
}

/** The first CPU's features: words that have what every processor has. */
function inferFeatures(of: Inference): void {
  const data = of.from.symbols.find('boot_cpu_data');
  if (data === undefined) return;
  const bytes = of.words.atMost(data, FEATURES_SEARCHED);
  const has = (at: number, features: number, never: number) =>
    (bytes.readUInt32LE(at) & (features | never)) === features;
  const places: number[] = [];
  for (let at = 0; at + 8 <= FEATURES_SEARCHED; at += 4) {
    const first = has(at, FIRST_FEATURES, NEVER_FIRST);
    if (first && has(at + 4, SECOND_FEATURES, NEVER_SECOND)) places.push(at);
  }
  of.settle('cpuinfo_x86.x86_capability', places);
}

function multiples(step: number): number[] {
  return Array.from({ length: SEARCHED / step }, (_, i) => i * step);
}
