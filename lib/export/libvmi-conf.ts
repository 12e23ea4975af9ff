import { hex, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { kaslrOffset } from './linked.js';

export interface ConfOptions {
  /** The guest's name for libvmi: the domain's, or that of the file without its folder. */
  readonly name: string;
  /** Path of the System.map that the entry names; without one, libvmi knows no symbols. */
  readonly sysmap?: string | undefined;
}

/**
 * A guest's name in libvmi/config/lexicon.l: a word of two characters or more that is no number.
 */
const WORD = /^(?!(0x[0-9a-f]+|[0-9]+)$)[a-z0-9][a-z0-9._-]+$/i;
/** A path there. */
const PATH = /^\/[a-z0-9/._@-]+$/i;

/**
 * An entry of libvmi.conf. The offsets fit the kernel for good; the page table, the slide and
 * `init_task` are of this boot, and spare libvmi the search for them.
 * @throws {VmiError} `VMI_UNSUPPORTED`: a name or a path that libvmi's own parser cannot read
 */
export function* exportLibvmiConf(kernel: Kernel, { name, sysmap }: ConfOptions): Iterable<string> {
  if (!WORD.test(name)) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `libvmi cannot read an entry for '${name}' from its configuration: a name takes two or more letters, digits, '.', '_' or '-', and is no number; give the guest such a name`,
    );
  }
  if (sysmap !== undefined && !PATH.test(sysmap)) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `libvmi cannot read the path ${sysmap} from its configuration: only letters, digits and / . _ @ - may be in it`,
    );
  }
  const { symbols, types } = kernel;
  const offset = (struct: string, member: string) => hex(BigInt(types.offset(struct, member)));
  const release = kernel.release.replace(/[^\x20-\x7e]/g, '?');
  yield `# Linux ${release}, build-id ${kernel.buildId ?? 'unknown'}\n`;
  yield `${name} {\n`;
  yield '    ostype = "Linux";\n';
  yield '    pagemode = "VMI_PM_IA32E";\n';
  yield sysmap === undefined
    ? '    # sysmap = "/path/of/System.map";\n'
    : `    sysmap = "${sysmap}";\n`;
  yield `    linux_tasks = ${offset('task_struct', 'tasks')};\n`;
  yield `    linux_mm = ${offset('task_struct', 'mm')};\n`;
  yield `    linux_pid = ${offset('task_struct', 'pid')};\n`;
  yield `    linux_name = ${offset('task_struct', 'comm')};\n`;
  yield `    linux_pgd = ${offset('mm_struct', 'pgd')};\n`;
  yield '    # Of this boot of the guest. Without them libvmi searches:\n';
  yield `    kpgd = ${hex(kernel.root)};\n`;
  yield `    linux_kaslr = ${hex(kaslrOffset(kernel))};\n`;
  yield `    linux_init_task = ${hex(symbols.address('init_task'))};\n`;
  yield '}\n';
}
