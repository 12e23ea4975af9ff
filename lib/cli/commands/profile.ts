import type { ProfileFormat } from '../../index.js';
import { jsonSafe, printableLines } from '../../text/printable.js';
import { UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, type Invocation, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

/** Every form, as `PROFILE_FORMATS` has them: the help does not load what writes them. */
const FORMATS: Readonly<Record<ProfileFormat, true>> = {
  'libvmi-conf': true,
  'system-map': true,
  isf: true,
  json: true,
  vmcoreinfo: true,
  btf: true,
};
const PROFILE_FORMATS = Object.keys(FORMATS) as ProfileFormat[];

export const profile: Command = {
  name: 'profile',
  summary: 'write what was found of the kernel for other tools',
  operands: [TARGET],
  options: {
    format: {
      value: 'FORMAT',
      values: PROFILE_FORMATS,
      summary: `one of ${PROFILE_FORMATS.join(', ')}`,
    },
    name: {
      value: 'NAME',
      summary: "libvmi-conf: the guest's name for libvmi; by default the target's",
    },
    sysmap: {
      value: 'FILE',
      values: 'files',
      summary: 'libvmi-conf: the System.map that the entry names',
    },
    ...ATTACH_OPTIONS,
  },
  details: [
    'libvmi-conf is an entry of libvmi.conf (~/etc/libvmi.conf, /etc/libvmi.conf); system-map is a System.map with every symbol; isf is a symbol file of Volatility 3; json has facts, offsets and symbols for scripts. Each of them can be given back with --profile. vmcoreinfo is what the kernel says of itself for crash, drgn and makedumpfile; btf its types for bpftool and pahole, as bytes.',
    'Symbols stand at the addresses they were linked to, as libvmi and Volatility want them: both add what KASLR moved the kernel by. In an entry of libvmi.conf the last three lines are of this boot: after a reboot, write it anew.',
  ],
  examples: [
    'vmi profile qemu:4242 --format system-map > /etc/debian.map',
    'vmi profile qemu:4242 --format libvmi-conf --name debian --sysmap /etc/debian.map >> /etc/libvmi.conf',
    'vmi profile image:guest.ram --format isf > symbols/linux/guest.json',
  ],
  run(invocation) {
    const { out, value, withGuest } = invocation;
    const format = parseFormat(invocation);
    const sysmap = value('sysmap');
    return withGuest(async (guest) => {
      if (format === 'libvmi-conf') {
        if (sysmap === undefined)
          out.note(
            "without --sysmap libvmi finds no symbols: write one with 'vmi profile TARGET --format system-map'",
          );
        if (guest.kernel.levels === 5)
          out.note(
            'this guest has 5-level paging, which libvmi does not walk: boot it with no5lvl for libvmi',
          );
      }
      const { writeProfile } = await import('../../index.js');
      const safe = format === 'isf' || format === 'json' ? jsonSafe : printableLines;
      await writeProfile(guest, format, out.sink(safe), {
        ...(value('name') === undefined ? {} : { name: value('name') }),
        ...(sysmap === undefined ? {} : { sysmap }),
      });
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
