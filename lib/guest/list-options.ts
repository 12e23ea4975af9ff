import { checkFlag, checkOptions, type OptionNames } from '../options.js';
import type { ListOptions } from '../tasks/task-walk.js';

const NAMES: OptionNames<ListOptions> = { threads: true };

/** @throws {TypeError} no object, there is no such option, or it is no boolean */
export function checkListOptions(options: ListOptions): void {
  checkOptions(options, NAMES);
  checkFlag(options.threads, 'threads');
}
