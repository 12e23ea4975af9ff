import type { Command } from './command.js';
import { annotate } from './commands/annotate.js';
import { completion } from './commands/completion.js';
import { cpus } from './commands/cpus.js';
import { cr3 } from './commands/cr3.js';
import { doctor } from './commands/doctor.js';
import { explain } from './commands/explain.js';
import { gdbserver } from './commands/gdbserver.js';
import { info } from './commands/info.js';
import { list } from './commands/list.js';
import { man } from './commands/man.js';
import { profile } from './commands/profile.js';
import { ps } from './commands/ps.js';
import { read } from './commands/read.js';
import { record } from './commands/record.js';
import { repl } from './commands/repl.js';
import { run } from './commands/run.js';
import { search } from './commands/search.js';
import { stacks } from './commands/stacks.js';
import { sym } from './commands/sym.js';
import { top } from './commands/top.js';
import { trace } from './commands/trace.js';
import { translate } from './commands/translate.js';
import { type } from './commands/type.js';
import { types } from './commands/types.js';
import { watch } from './commands/watch.js';
import { what } from './commands/what.js';
import { who } from './commands/who.js';
import { write } from './commands/write.js';

/** Every command of `vmi`, in the order of its help. */
export const COMMANDS: readonly Command[] = [
  list,
  doctor,
  ps,
  cr3,
  explain,
  who,
  annotate,
  cpus,
  watch,
  top,
  trace,
  info,
  sym,
  read,
  write,
  translate,
  what,
  search,
  type,
  types,
  stacks,
  gdbserver,
  record,
  profile,
  repl,
  run,
  completion,
  man,
];
