// @ts-check
/**
 * The table of commands, as docs/reference/commands.md has it.
 *
 * @param {readonly { name: string, summary: string, operands: readonly { name: string, many?:
 *   boolean, optional?: boolean }[] }[]} commands
 */
export function commandTable(commands) {
  const rows = commands.map(({ name, operands, summary }) => {
    const words = operands.map((one) => {
      const text = one.many ? `${one.name}…` : one.name;
      return one.optional ? `[${text}]` : text;
    });
    return `| \`vmi ${[name, ...words].join(' ').replaceAll('|', '\\|')}\` | ${summary} |`;
  });
  return ['| command | does |', '|---|---|', ...rows].join('\n');
}
