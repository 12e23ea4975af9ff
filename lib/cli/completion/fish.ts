import { type Command, GLOBAL_OPTIONS, type Option, type Values } from '../command.js';

/**
 * A completion script for fish: a line for each option and operand, with the place it belongs to.
 * @param instead what may stand where a command does
 */
export function fishCompletion(
  commands: readonly Command[],
  instead: Readonly<Record<string, Option>>,
): string {
  const valued = commands.flatMap(({ name, options }) =>
    Object.entries(options)
      .filter(([, { value }]) => value !== undefined)
      .flatMap(([long, { short }]) => [
        `${name} --${long}`,
        ...(short === undefined ? [] : [`${name} -${short}`]),
      ]),
  );
  const names = [...commands, { name: 'help', summary: 'show the help of a command' }];
  return [
    '# vmi: completion for fish. vmi completion fish > ~/.config/fish/completions/vmi.fish',
    '',
    `set -g __vmi_valued ${valued.map(quote).join(' ')}`,
    DRIVER,
    'complete -c vmi -f',
    ...names.map(({ name, summary }) => `${at(' 0')} -a ${name} -d ${quote(summary)}`),
    ...Object.entries(instead).map((option) => optionLine(' 0', option)),
    `${at('help .*')} -a ${quote(commands.map(({ name }) => name).join(' '))}`,
    ...commands.flatMap((command) => commandLines(command, commands)),
    '',
  ].join('\n');
}

function commandLines(command: Command, commands: readonly Command[]): string[] {
  const options = Object.entries({ ...command.options, ...GLOBAL_OPTIONS });
  return [
    ...options.map((option) => optionLine(`${command.name} .*`, option)),
    ...command.operands.flatMap(({ many, values }, place) => {
      if (values === undefined) return [];
      const places = many === true ? `([${place}-9]|[1-9][0-9]+)` : String(place);
      return [`${at(`${command.name} ${places}`)} ${valueText(values, commands)}`];
    }),
  ];
}

function optionLine(place: string, [name, option]: [string, Option]): string {
  const { short, value, values, summary } = option;
  const spelling = short === undefined ? `-l ${name}` : `-s ${short} -l ${name}`;
  let takes = '';
  if (value !== undefined) {
    takes = values === undefined ? ' -x' : ` -r ${valueText(values, [])}`;
  }
  return `${at(place)} ${spelling}${takes} -d ${quote(summary)}`;
}

function at(place: string): string {
  return `complete -c vmi -n ${quote(`__vmi_at "${place}"`)}`;
}

function valueText(values: Values, commands: readonly Command[]): string {
  if (values === 'files') return '-F';
  if (values === 'targets') return "-f -a '(vmi list --targets 2> /dev/null)'";
  const words = values === 'commands' ? commands.map(({ name }) => name) : values;
  return `-f -a ${quote(words.join(' '))}`;
}

function quote(word: string): string {
  return `'${word.replace(/['\\]/g, String.raw`\$&`)}'`;
}

const DRIVER = `
# Whether the cursor is at a place: a command, and the number of the operand that is typed.
function __vmi_at
    set -l words (commandline -opc)
    set -e words[1]
    set -l name ''
    set -l place 0
    set -l takes 0
    for word in $words
        if test $takes = 1
            set takes 0
        else if test -z "$name"
            set name $word
        else if contains -- "$name $word" $__vmi_valued
            set takes 1
        else if not string match -qr -- '^-.' $word
            set place (math $place + 1)
        end
    end
    string match -qr -- "^$argv[1]\\$" "$name $place"
end
`;
