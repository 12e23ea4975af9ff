import { hex, VmiError } from '../../errors.js';
import type { Guest } from '../../index.js';
import { table } from '../../text/table.js';
import { isAddress, parseAddressOperand } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { answerEach } from '../each.js';

interface Answer {
  readonly query: string;
  readonly address: bigint;
  readonly symbol: string;
  readonly offset: number;
}

export const sym: Command = {
  name: 'sym',
  summary: "look up kernel symbols: a name's address, an address's name",
  operands: [
    TARGET,
    {
      name: 'NAME|ADDRESS',
      many: true,
      summary: 'a symbol, or an address (0x…, or sixteen hex digits)',
    },
  ],
  options: { ...JSON_OPTION, ...ATTACH_OPTIONS },
  examples: ['vmi sym qemu:4242 init_task', 'vmi sym qemu:4242 0xffffffff81e0a590 schedule'],
  run({ operands, has, out, withGuest }) {
    const queries = operands
      .slice(1)
      .map((text) => (isAddress(text) ? parseAddressOperand(text) : text));
    return withGuest((guest) => {
      const answers: Answer[] = [];
      const code = answerEach(out, queries, (query) => {
        answers.push(typeof query === 'string' ? byName(guest, query) : byAddress(guest, query));
      });
      if (has('json')) {
        out.json(answers.map((answer) => ({ ...answer, address: hex(answer.address) })));
      } else {
        out.lines(
          table(
            answers,
            [
              { heading: 'ADDRESS', cell: ({ address }) => hex(address) },
              {
                heading: 'SYMBOL',
                cell: ({ symbol, offset }) => (offset === 0 ? symbol : `${symbol}+${hex(offset)}`),
              },
            ],
            { headings: false },
          ),
        );
      }
      return code;
    });
  },
};

function byName(guest: Guest, name: string): Answer {
  return { query: name, address: guest.symbol(name), symbol: name, offset: 0 };
}

function byAddress(guest: Guest, address: bigint): Answer {
  const place = guest.symbolAt(address);
  if (place === undefined)
    throw new VmiError('VMI_SYMBOL', `no symbol at or below ${hex(address)}`);
  return { query: hex(address), address, symbol: place.name, offset: Number(place.offset) };
}
