import { BaseTypes, type StructType, type TypeRef, type TypeTable } from './table.js';

/**
 * Answers of a type table by question, `struct.path`, `sizeof name` or `constant NAME`; `null`:
 * absent.
 */
export type KnownOffsets = ReadonlyMap<string, number | null>;

/**
 * A type table that opens the real one at the first question it has no remembered answer to.
 * What was asked is kept, for the cache.
 */
export class LazyTypes extends BaseTypes {
  readonly source: string;
  readonly #known: Map<string, number | null>;
  readonly #isOpen: (question: string) => boolean;
  readonly #open: () => TypeTable;
  #table: TypeTable | undefined;

  /**
   * @param isOpen whether a question that has no answer may have one later, so that it is not
   *   remembered that it has none
   */
  constructor(
    source: string,
    open: () => TypeTable,
    known: KnownOffsets = new Map(),
    isOpen: (question: string) => boolean = () => false,
  ) {
    super();
    this.source = source;
    this.#open = open;
    this.#known = new Map(known);
    this.#isOpen = isOpen;
  }

  /** Answers so far. */
  get known(): KnownOffsets {
    return this.#known;
  }

  /** The table behind it, opened if it was not. */
  get table(): TypeTable {
    this.#table ??= this.#open();
    return this.#table;
  }

  find(name: string): StructType | undefined {
    return this.table.find(name);
  }

  override findOffset(struct: string, path: string): number | undefined {
    return this.#remembered(`${struct}.${path}`, () => this.table.findOffset(struct, path));
  }

  override offset(struct: string, path: string): number {
    return this.findOffset(struct, path) ?? this.table.offset(struct, path);
  }

  findSize(name: string): number | undefined {
    return this.#remembered(`sizeof ${name}`, () => this.table.findSize(name));
  }

  override size(name: string): number {
    return this.findSize(name) ?? this.table.size(name);
  }

  override findType(name: string): TypeRef | undefined {
    return this.table.findType(name);
  }

  override findVariable(name: string): TypeRef | undefined {
    return this.table.findVariable(name);
  }

  /** Remembered where the cache's file holds it: not negative, below 2^53. */
  override findConstant(name: string): bigint | undefined {
    const question = `constant ${name}`;
    const known = this.#known.get(question);
    if (known !== undefined) return known === null ? undefined : BigInt(known);
    const value = this.table.findConstant(name);
    const isKept = value === undefined || (value >= 0n && value <= Number.MAX_SAFE_INTEGER);
    if (isKept) this.#remember(question, value === undefined ? undefined : Number(value));
    return value;
  }

  names(): Iterable<string> {
    return this.table.names();
  }

  #remembered(question: string, ask: () => number | undefined): number | undefined {
    const known = this.#known.get(question);
    if (known !== undefined) return known ?? undefined;
    const answer = ask();
    this.#remember(question, answer);
    return answer;
  }

  #remember(question: string, answer: number | undefined): void {
    // Bounded: a REPL may ask for anything.
    if (this.#known.size < 1024 && (answer !== undefined || !this.#isOpen(question))) {
      this.#known.set(question, answer ?? null);
    }
  }
}
