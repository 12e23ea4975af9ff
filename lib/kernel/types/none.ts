import { BaseTypes } from './table.js';

/** No types at all: what is known of a kernel before its own are found. */
export class NoTypes extends BaseTypes {
  readonly source = 'nothing';

  find(): undefined {
    return undefined;
  }

  findSize(): undefined {
    return undefined;
  }

  names(): Iterable<string> {
    return [];
  }
}
