import { tryAnswer } from '../try-answer.js';
import { BaseTypes, type StructType, type TypeRef, type TypeTable } from './table.js';

/** A profile's types, completed by the guest's own where it has some. */
export class LayeredTypes extends BaseTypes {
  readonly source: string;
  readonly #first: TypeTable;
  readonly #second: TypeTable;

  constructor(first: TypeTable, second: TypeTable) {
    super();
    this.#first = first;
    this.#second = second;
    this.source = first.source;
  }

  find(name: string): StructType | undefined {
    const first = this.#first.find(name);
    // A libvmi.conf knows offsets but no sizes: its structures are no full answer.
    return first !== undefined && first.size > 0 ? first : (this.#second.find(name) ?? first);
  }

  override findOffset(struct: string, path: string): number | undefined {
    return (
      this.#first.findOffset(struct, path) ?? tryAnswer(() => this.#second.findOffset(struct, path))
    );
  }

  override offset(struct: string, path: string): number {
    return this.findOffset(struct, path) ?? this.#second.offset(struct, path);
  }

  findSize(name: string): number | undefined {
    return this.#first.findSize(name) ?? tryAnswer(() => this.#second.findSize(name));
  }

  override findType(name: string): TypeRef | undefined {
    const first = this.#first.findType(name);
    if (first !== undefined && first.size > 0) return first;
    return tryAnswer(() => this.#second.findType(name)) ?? first;
  }

  override findVariable(name: string): TypeRef | undefined {
    return this.#first.findVariable(name) ?? tryAnswer(() => this.#second.findVariable(name));
  }

  override findConstant(name: string): bigint | undefined {
    return this.#first.findConstant(name) ?? tryAnswer(() => this.#second.findConstant(name));
  }

  names(): Iterable<string> {
    return this.#second.names();
  }
}
