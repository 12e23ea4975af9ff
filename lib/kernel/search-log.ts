/** What was tried and what came of it, for the message when nothing fits. */
export class SearchLog {
  readonly #lines: string[] = [];

  note(line: string): void {
    if (this.#lines.length < 32 && !this.#lines.includes(line)) this.#lines.push(line);
  }

  toString(): string {
    return this.#lines.join('; ');
  }
}
