import { type Command, GLOBAL_OPTIONS, type Option, type Values } from '../command.js';
import { quote } from './quote.js';

/**
 * A completion script for zsh: the arguments of each command for `_arguments`.
 * @param instead what may stand where a command does
 */
export function zshCompletion(
  commands: readonly Command[],
  instead: Readonly<Record<string, Option>>,
): string {
  return `#compdef vmi
# vmi: completion for zsh. A file _vmi on $fpath; or in ~/.zshrc: eval "$(vmi completion zsh)"

_vmi_targets() {
  local -a found
  found=(\${(f)"$(_call_program targets vmi list --targets 2> /dev/null)"})
  compadd -a found
}

_vmi_commands() {
  local -a found
  found=(
${commands.map(({ name, summary }) => `    ${quote(`${name}:${summary}`)}`).join('\n')}
  )
  _describe command found
}

_vmi() {
  local curcontext=$curcontext state
  typeset -A opt_args
  _arguments -C \\
${lines([...Object.entries(instead).map(optionSpec), quote('1:COMMAND:_vmi_commands')])} \\
    '*:: :->arguments'
  [[ $state == arguments ]] || return
  curcontext=\${curcontext%:*}-$words[1]:
  case $words[1] in
    help) _arguments '1:COMMAND:_vmi_commands' ;;
${commands.map(commandCase).join('\n')}
  esac
}

if [[ $funcstack[1] == _vmi ]]; then
  _vmi "$@"
else
  compdef _vmi vmi
fi
`;
}

function commandCase(command: Command): string {
  const options = Object.entries({ ...command.options, ...GLOBAL_OPTIONS });
  const operands = command.operands.map(({ name, many, values }, place) =>
    quote(`${many === true ? '*' : place + 1}:${escaped(name)}:${action(values)}`),
  );
  const specs = [...options.map(optionSpec), ...operands];
  return `    ${command.name})\n      _arguments -s \\\n${lines(specs)}\n      ;;`;
}

function lines(specs: readonly string[]): string {
  return specs.map((spec) => `    ${spec}`).join(' \\\n');
}

/** An option for `_arguments`: what excludes it, its spellings, what it is, what it takes. */
function optionSpec([name, option]: [string, Option]): string {
  const { short, value, values, many, summary } = option;
  const takes = value === undefined ? '' : `:${escaped(value)}:${action(values)}`;
  const what = `[${summary.replace(/[[\]\\]/g, String.raw`\$&`)}]${takes}`;
  const long = value === undefined ? `--${name}` : `--${name}=`;
  const star = many === true ? '*' : '';
  if (short === undefined) return quote(`${star}${long}${what}`);
  const excluded = many === true ? '*' : `(-${short} --${name})`;
  return `${quote(excluded)}{-${short}${value === undefined ? '' : '+'},${long}}${quote(what)}`;
}

function action(values: Values | undefined): string {
  if (values === undefined) return ' ';
  if (values === 'files') return '_files';
  return typeof values === 'string' ? `_vmi_${values}` : `(${values.join(' ')})`;
}

function escaped(text: string): string {
  return text.replace(/[:\\]/g, String.raw`\$&`);
}
