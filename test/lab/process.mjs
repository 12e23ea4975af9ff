// @ts-check
/** Processes told apart by more than their id, which the system gives out again. */
import { readFile } from 'node:fs/promises';

/**
 * Names a running process for good: its id and its start time.
 *
 * @param {number} pid
 * @returns {Promise<string>} `PID STARTTIME`, or `PID gone`
 */
export async function processMark(pid) {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' '); // from field 3 of proc(5) on
    return fields[0] === 'Z' ? `${pid} gone` : `${pid} ${fields[19]}`;
  } catch {
    return `${pid} gone`;
  }
}

/**
 * Says whether the process that a mark names still runs.
 *
 * @param {string} mark from {@link processMark}
 * @returns {Promise<boolean>}
 */
export async function processAlive(mark) {
  return !mark.endsWith('gone') && (await processMark(Number.parseInt(mark, 10))) === mark;
}
