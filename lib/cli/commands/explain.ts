import { explainJson, explainText } from '../../text/explain.js';
import { parsePid } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT, exitCodeOf } from '../exit-code.js';

export const explain: Command = {
  name: 'explain',
  summary: 'how the CR3 of a PID comes about: every step, and how to take it by hand',
  operands: [TARGET, { name: 'PID', summary: 'PID or TID in the initial PID namespace' }],
  options: { ...JSON_OPTION, ...ATTACH_OPTIONS },
  details: [
    'Where a step fails, what was read before it is printed all the same, and the exit code says why.',
  ],
  examples: ['vmi explain qemu:4242 1', 'vmi explain qemu:4242 2 --json'],
  run({ operands, has, out, withGuest }) {
    const pid = parsePid(operands[1]!);
    return withGuest((guest) => {
      const explanation = guest.explain(pid);
      if (has('json')) out.json([explainJson(explanation)]);
      else out.lines(explainText(explanation, out.styles));
      return explanation.error === undefined ? EXIT.done : exitCodeOf(explanation.error.code);
    });
  },
};
