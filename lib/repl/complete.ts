import type { CompleterResult } from 'node:readline';
import type { Guest } from '../index.js';

/** Names offered at once. */
const MAX = 200;

/**
 * Completes what is inside the helpers' parentheses: symbols in `sym('…`, `read('…` and
 * `translate('…`, `walk('…`, structures in `type('…`, PIDs in `task(…` and `cr3(…`.
 * @returns `undefined` where Node's own completer knows better
 */
export function completeArgument(line: string, guest: Guest): CompleterResult | undefined {
  const name = /\b(sym|symbol|read|translate|walk|type)\((['"`])([^'"`]*)$/.exec(line);
  if (name !== null) {
    const [, helper, , prefix] = name;
    return [
      helper === 'type' ? typeNames(guest, prefix!) : guest.kernel.symbols.complete(prefix!, MAX),
      prefix!,
    ];
  }
  const pid = /\b(task|cr3|pidToCr3)\((\d*)$/.exec(line);
  if (pid !== null) {
    const prefix = pid[2]!;
    const pids = guest.tasks().map((task) => String(task.pid));
    return [pids.filter((text) => text.startsWith(prefix)).slice(0, MAX), prefix];
  }
  return undefined;
}

function typeNames(guest: Guest, prefix: string): string[] {
  const found = new Set<string>();
  for (const name of guest.kernel.types.names()) {
    if (name.startsWith(prefix)) found.add(name);
  }
  return [...found].sort().slice(0, MAX);
}
