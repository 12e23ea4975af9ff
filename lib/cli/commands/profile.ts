import { basename, resolve } from 'node:path';
import { exportProfile, PROFILE_FORMATS, type ProfileFormat } from '../../export/profile.js';
import { qemuProcesses } from '../../memory/qemu/process.js';
import { parseTarget } from '../../target.js';
import { jsonSafe, printableLines } from '../../text/printable.js';
import { UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, type Invocation, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { version } from '../version.js';

/** Characters that are written at once. */
const PIECE = 1 << 20;

export const profile: Command = {
  name: 'profile',
  summary: 'write what was found of the kernel for other tools',
  operands: [TARGET],
  options: {
    format: { value: 'FORMAT', summary: `one of ${PROFILE_FORMATS.join(', ')}` },
    name: {
      value: 'NAME',
      summary: "libvmi-conf: the guest's name for libvmi; by default the target's",
    },
    sysmap: { value: 'FILE', summary: 'libvmi-conf: the System.map that the entry names' },
    ...ATTACH_OPTIONS,
  },
  details: [
    'libvmi-conf is an entry of libvmi.conf (~/etc/libvmi.conf, /etc/libvmi.conf); system-map is a System.map with every symbol; isf is a symbol file of Volatility 3; json has facts, offsets and symbols for scripts. Each of them can be given back with --profile.',
    'Symbols stand at the addresses they were linked to, as libvmi and Volatility want them: both add what KASLR moved the kernel by. In an entry of libvmi.conf the last three lines are of this boot: after a reboot, write it anew.',
  ],
  examples: [
    'vmi profile qemu:4242 --format system-map > /etc/debian.map',
    'vmi profile qemu:4242 --format libvmi-conf --name debian --sysmap /etc/debian.map >> /etc/libvmi.conf',
    'vmi profile image:guest.ram --format isf > symbols/linux/guest.json',
  ],
  run(invocation) {
    const { operands, out, value, withGuest } = invocation;
    const format = parseFormat(invocation);
    const sysmap = value('sysmap');
    return withGuest(async ({ kernel }) => {
      if (format === 'libvmi-conf') {
        if (sysmap === undefined)
          out.note(
            "without --sysmap libvmi finds no symbols: write one with 'vmi profile TARGET --format system-map'",
          );
        if (kernel.levels === 5)
          out.note(
            'this guest has 5-level paging, which libvmi does not walk: boot it with no5lvl for libvmi',
          );
      }
      const safe = format === 'isf' || format === 'json' ? jsonSafe : printableLines;
      let text = '';
      for (const piece of exportProfile(kernel, format, {
        name: value('name') ?? (format === 'libvmi-conf' ? nameOf(operands[0]!) : ''),
        sysmap: sysmap === undefined ? undefined : resolve(sysmap),
        version: version(),
      })) {
        text += piece;
        if (text.length < PIECE) continue;
        out.text(safe(text));
        text = '';
        await out.drained();
      }
      out.text(safe(text));
      return EXIT.done;
    });
  },
};

/** @throws {UsageError} none, an unknown one, or one that the other options do not go with */
function parseFormat({ value }: Invocation): ProfileFormat {
  const given = value('format');
  const all = PROFILE_FORMATS.join(', ');
  if (given === undefined) throw new UsageError(`missing --format (${all})`);
  const format = PROFILE_FORMATS.find((one) => one === given);
  if (format === undefined)
    throw new UsageError(`Expected --format as one of ${all} but received '${given}'`);
  for (const option of ['name', 'sysmap']) {
    if (format !== 'libvmi-conf' && value(option) !== undefined)
      throw new UsageError(`--${option} goes with --format libvmi-conf only`);
  }
  return format;
}

/** What libvmi calls the guest: the domain's name, or the file's without its folder. */
function nameOf(text: string): string {
  const target = parseTarget(text);
  switch (target.kind) {
    case 'image':
      return basename(target.path);
    case 'libvirt':
      return target.name;
    case 'libvmi':
      return target.driver === 'file' ? basename(target.name) : target.name;
    case 'qemu':
      return qemuProcesses().find(({ pid }) => pid === target.pid)?.name || 'guest';
    case 'qmp':
      return 'guest';
  }
}
