import { type Command, GLOBAL_OPTIONS, type Option, type Values } from '../command.js';
import { quote } from './quote.js';

/**
 * A completion script for bash: what may stand at each place as one `case`, and one function that
 * finds out which place the cursor is at.
 * @param instead what may stand where a command does
 */
export function bashCompletion(
  commands: readonly Command[],
  instead: Readonly<Record<string, Option>>,
): string {
  const names = ['help', ...commands.map(({ name }) => name)];
  return [
    '# vmi: completion for bash. In ~/.bashrc: eval "$(vmi completion bash)"',
    '',
    '# What may stand at a place: words, or @files, @targets, @none for a value nobody lists.',
    '_vmi_words() {',
    '  case $1 in',
    branch(quote(' 0'), names.join(' ')),
    branch(quote(' options'), Object.entries(instead).flatMap(spellings).join(' ')),
    branch("'help '[0-9]*", valueText('commands', commands)),
    ...commands.flatMap((command) => branches(command, commands)),
    "    *) REPLY='' ;;",
    '  esac',
    '}',
    '',
    DRIVER,
  ].join('\n');
}

function branches(command: Command, commands: readonly Command[]): string[] {
  const options = Object.entries({ ...command.options, ...GLOBAL_OPTIONS });
  const lines = [
    branch(quote(`${command.name} options`), options.flatMap(spellings).join(' ')),
    ...options
      .filter(([, { value }]) => value !== undefined)
      .map((option) =>
        branch(
          spellings(option)
            .map((word) => quote(`${command.name} ${word}`))
            .join(' | '),
          valueText(option[1].values, commands),
        ),
      ),
  ];
  for (const [place, { many, values }] of command.operands.entries()) {
    const pattern =
      many === true ? `${quote(`${command.name} `)}[0-9]*` : quote(`${command.name} ${place}`);
    lines.push(branch(pattern, valueText(values, commands)));
  }
  return lines;
}

function branch(pattern: string, words: string): string {
  return `    ${pattern}) REPLY=${quote(words)} ;;`;
}

function spellings([name, { short }]: [string, Option]): string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

function valueText(values: Values | undefined, commands: readonly Command[]): string {
  if (values === undefined) return '@none';
  if (values === 'commands') return commands.map(({ name }) => name).join(' ');
  return typeof values === 'string' ? `@${values}` : values.join(' ');
}

const DRIVER = `_vmi() {
  local REPLY words=() word glue='' command='' takes='' plain='' place=0 i
  # bash cuts words at colons and equals signs, which stand within targets and options.
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if ((i == COMP_CWORD)) && [[ \${COMP_LINE:COMP_POINT-1:1} == ' ' ]]; then
      words+=("$word") glue=''
      continue
    fi
    local is_break=''
    [[ -n $word && -z \${word//[:=]/} ]] && is_break=1
    if [[ -n $is_break$glue && \${#words[@]} -gt 0 ]]; then
      words[\${#words[@]}-1]+=$word
    else
      words+=("$word")
    fi
    glue=$is_break
  done
  local last=$((\${#words[@]} - 1))
  local cur=\${words[last]} prefix=''
  for word in "\${words[@]:0:last}"; do
    if [[ -n $takes ]]; then
      takes=''
    elif [[ -z $command ]]; then
      command=$word
      [[ $word == -h || $word == --help ]] && command=help
    elif [[ -n $plain || $word != -?* ]]; then
      ((place += 1))
    elif [[ $word == -- ]]; then
      plain=1
    elif [[ $word != *=* ]]; then
      _vmi_words "$command $word"
      takes=$REPLY
    fi
  done
  if [[ -n $takes ]]; then
    REPLY=$takes
  elif [[ -z $plain && $cur == --*=* ]]; then
    prefix=\${cur%%=*}=
    _vmi_words "$command \${cur%%=*}"
  elif [[ -z $plain && $cur == -* ]]; then
    _vmi_words "$command options"
  else
    _vmi_words "$command $place"
    [[ -z $REPLY && -z $plain ]] && _vmi_words "$command options"
  fi
  local value=\${cur#"$prefix"} found
  COMPREPLY=()
  case $REPLY in
    @files)
      compopt -o filenames 2> /dev/null
      while IFS= read -r found; do COMPREPLY+=("$prefix$found"); done < <(compgen -f -- "$value")
      ;;
    @targets)
      # Names of guests are taken as they are, and never as something to expand.
      while IFS= read -r found; do
        [[ $found == "$value"* ]] && COMPREPLY+=("$prefix$(printf %q "$found")")
      done < <("\${1:-vmi}" list --targets 2> /dev/null)
      ;;
    @none) ;;
    *)
      for found in $REPLY; do
        [[ $found == "$value"* ]] && COMPREPLY+=("$prefix$found")
      done
      ;;
  esac
  # What stands before the last cut is on the line already.
  local breaks=\${COMP_WORDBREAKS//[!:=]/} head=''
  [[ -n $breaks ]] && head=\${cur%"\${cur##*[$breaks]}"}
  [[ -n $head ]] && COMPREPLY=("\${COMPREPLY[@]#"$head"}")
  return 0
}

complete -F _vmi vmi
`;
