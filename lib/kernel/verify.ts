import { wrap } from '../address.js';
import { CorruptError, FaultError, hex } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { ImageCandidate } from './candidate.js';
import type { KernelImage } from './kernel-image.js';
import type { SymbolTable } from './symbols/table.js';
import type { TypeTable } from './types/table.js';
import { COMM_LENGTH, KERNEL_HALF } from './x86-64.js';

/** A live list changes under the reader; so often is a look repeated before it counts as broken. */
const ATTEMPTS = 8;

export function readBanner(
  space: VirtualMemory,
  symbols: SymbolTable,
  candidate: ImageCandidate,
): { banner: string; release: string } {
  const at = symbols.address('linux_banner');
  let text = '';
  try {
    text = space.readString(at, 512);
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
  }
  const release = /^Linux version (\S{1,64}) /.exec(text)?.[1];
  if (release === undefined) {
    throw new CorruptError(`linux_banner at ${hex(at)} does not start with 'Linux version'`, at);
  }
  const expected = candidate.vmcoreinfo?.release;
  if (expected !== undefined && expected !== release) {
    throw new CorruptError(`linux_banner says ${release}, VMCOREINFO ${expected}`, at);
  }
  return { banner: text.trimEnd(), release };
}

/**
 * init_task is the idle task, its list closes in a guest that is read itself, and init_mm names the
 * page table that was found.
 */
export function verifyTasks(
  memory: VirtualMemory,
  symbols: SymbolTable,
  types: TypeTable,
  image: KernelImage,
): void {
  const task = symbols.address('init_task');
  const offset = (member: string) => types.offset('task_struct', member);
  const at = (member: string) => wrap(task + BigInt(offset(member)));
  const place = (member: string) => `task_struct.${member} at ${offset(member)}`;
  const pid = memory.readU32(at('pid'));
  const comm = memory.read(at('comm'), COMM_LENGTH).toString('latin1').split('\0', 1)[0]!;
  if (!comm.startsWith('swapper')) {
    throw new CorruptError(
      `${place('comm')}: init_task at ${hex(task)} has ${JSON.stringify(comm)}, not 'swapper…'`,
      task,
    );
  }
  if (pid !== 0) {
    throw new CorruptError(`${place('pid')}: init_task at ${hex(task)} has ${pid}, not 0`, task);
  }
  try {
    verifyList(memory, at('tasks'));
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    throw new CorruptError(`${place('tasks')}: ${error.message}`, error.address);
  }
  const mm = memory.readU64(at('mm'));
  if (mm !== 0n) {
    throw new CorruptError(`${place('mm')}: init_task at ${hex(task)} has one (${hex(mm)})`, task);
  }
  const active =
    types.findOffset('task_struct', 'active_mm') === undefined
      ? 0n
      : memory.readU64(at('active_mm'));
  if (active !== 0n && active < KERNEL_HALF) {
    throw new CorruptError(
      `${place('active_mm')}: of init_task it is ${hex(active)}, no kernel address`,
      task,
    );
  }
  const initMm = symbols.find('init_mm');
  if (initMm === undefined) return;
  const pgd = memory.readU64(wrap(initMm + BigInt(types.offset('mm_struct', 'pgd'))));
  let root: bigint | undefined;
  try {
    root = pgd < KERNEL_HALF ? undefined : memory.translate(pgd);
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
  }
  if (root !== image.root) {
    throw new CorruptError(
      `mm_struct.pgd at ${types.offset('mm_struct', 'pgd')}: of init_mm it is ${hex(pgd)} (physical ${root === undefined ? 'none' : hex(root)}), not the kernel's page table at ${hex(image.root)}`,
      initMm,
    );
  }
}

/**
 * Both neighbours of a list head point back. A task may be linked or unlinked just then: looked at
 * again. An image may have been copied while its guest ran, and has pages of different moments
 * then: there one of them suffices, or one whose page the image lacks.
 */
function verifyList(memory: VirtualMemory, head: bigint): void {
  let why = '';
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const next = memory.readU64(head);
    const prev = memory.readU64(wrap(head + 8n));
    if (next < KERNEL_HALF || prev < KERNEL_HALF) {
      why = `its neighbours are ${hex(next)} and ${hex(prev)}`;
      continue;
    }
    const links = [wrap(next + 8n), prev].map((link) => tryLink(memory, link));
    const fits = links.filter((link) => link === head || isAbsent(link)).length;
    if (fits === 2 || (fits === 1 && !memory.physical.live)) return;
    const fault = links.find((link) => typeof link !== 'bigint') as FaultError | undefined;
    why =
      fault?.message ??
      `its neighbours point to ${links.map((link) => hex(link as bigint)).join(' and ')}`;
  }
  throw new CorruptError(`the list of tasks at ${hex(head)} does not close: ${why}`, head);
}

function tryLink(memory: VirtualMemory, address: bigint): bigint | FaultError {
  try {
    return memory.readU64(address);
  } catch (error) {
    if (error instanceof FaultError) return error;
    throw error;
  }
}

function isAbsent(link: bigint | FaultError): boolean {
  return typeof link !== 'bigint' && link.absent;
}
