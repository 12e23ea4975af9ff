import type { ListedGuest } from '../../index.js';
import { bytesText, printable } from '../../text/printable.js';
import { table } from '../../text/table.js';
import { onlyOne } from '../arguments.js';
import { type Command, JSON_OPTION } from '../command.js';
import { EXIT } from '../exit-code.js';

export const list: Command = {
  name: 'list',
  summary: 'show what on this host can be attached',
  operands: [],
  options: {
    targets: { summary: 'print the targets alone, one a line, as completion asks for them' },
    ...JSON_OPTION,
  },
  details: [
    'Every QEMU that this user can see, and in dom0 of Xen its domains. A domain of the system\'s libvirt has a target libvirt:NAME as well, which adds registers and pause. "readable: no" means that its memory belongs to another user: run as that user or as root.',
  ],
  examples: ['vmi list', "vmi list --json | jq -r 'select(.readable).targets[0]'"],
  async run(invocation) {
    const { has, out } = invocation;
    onlyOne(invocation, 'targets', 'json');
    const { listGuests } = await import('../../index.js');
    const guests = listGuests();
    if (has('targets')) {
      out.lines(guests.flatMap(({ targets }) => targets.map(printable)));
      return EXIT.done;
    }
    if (has('json')) {
      out.json(guests);
      return EXIT.done;
    }
    if (guests.length === 0) {
      out.note(
        'no QEMU runs on this host that this user can see, and no domain of Xen; image:PATH attaches to a memory image',
      );
      return EXIT.done;
    }
    out.lines(
      table(
        guests,
        [
          { heading: 'PID', align: 'right', cell: ({ pid }) => String(pid ?? '-') },
          ...(guests.some(({ domain }) => domain !== null)
            ? [
                {
                  heading: 'DOMAIN',
                  align: 'right' as const,
                  cell: ({ domain }: ListedGuest) => String(domain ?? '-'),
                },
              ]
            : []),
          { heading: 'NAME', cell: (guest) => guest.name || '-' },
          {
            heading: 'MEMORY',
            align: 'right',
            cell: ({ memory }) => (memory === null ? '?' : bytesText(BigInt(memory))),
          },
          { heading: 'MACHINE', cell: (guest) => guest.machine ?? '?' },
          { heading: 'READABLE', cell: (guest) => (guest.readable ? 'yes' : 'no') },
          { heading: 'TARGETS', cell: (guest) => guest.targets.join('  ') },
        ],
        { styles: out.styles },
      ),
    );
    return EXIT.done;
  },
};
