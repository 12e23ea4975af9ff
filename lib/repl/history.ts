import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import type { REPLServer } from 'node:repl';

/**
 * The history's file: `NODE_LIBVMI_HISTORY`, else in the user's state folder; `undefined` when none
 * is wanted.
 */
export function historyFile(env: NodeJS.ProcessEnv): string | undefined {
  if (env.NODE_LIBVMI_HISTORY !== undefined) return env.NODE_LIBVMI_HISTORY || undefined;
  // XDG Base Directory Specification.
  const state = env.XDG_STATE_HOME || join(homedir(), '.local', 'state');
  return join(state, 'node-libvmi', 'repl_history');
}

/**
 * Loads the history and keeps it from now on. A folder that cannot be written costs the history,
 * not the session.
 */
export async function keepHistory(server: REPLServer, file: string): Promise<void> {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  } catch {
    return;
  }
  await new Promise<void>((resolve) => server.setupHistory(file, () => resolve()));
}
