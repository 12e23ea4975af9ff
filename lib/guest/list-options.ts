import { checkOptions, type OptionNames } from '../options.js';
import type { ListOptions } from '../tasks/task-walk.js';

const NAMES: OptionNames<ListOptions> = { threads: true };

/** @throws {TypeError} no object, or there is no such option */
export function checkListOptions(options: ListOptions): void {
  checkOptions(options, NAMES);
}
