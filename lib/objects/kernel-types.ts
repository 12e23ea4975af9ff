import type { StructType } from '../kernel/types/table.js';
import type { Reference } from './reference.js';

declare global {
  /**
   * Structures of one kernel by name, for TypeScript: empty until a file that `vmi types` wrote
   * declares them.
   */
  interface LibvmiKernelTypes {}
}

/** What every structure in guest memory has beside its members. */
export interface KernelStruct {
  readonly $address: bigint;
  readonly $struct: StructType;
  readonly $type: string;
  readonly $size: number;
  readonly $path: string;
  $member(path: string): Reference;
  $has(path: string): boolean;
  $cast<Name extends string>(type: Name): ValueOf<Name>;
  $object<Name extends string>(type: Name, address: bigint): ValueOf<Name>;
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  $follow(path: string): any;
  $add(count: number | bigint): this;
  $containerOf<Name extends string>(type: Name, member: string): ValueOf<Name>;
  $perCpu(cpu: number): this;
  $snapshot(): this;
  $bytes(): Buffer;
}

/** A type's name as the declarations have it, without the keyword. */
export type Bare<Name extends string> = Name extends `struct ${infer Rest}` | `union ${infer Rest}`
  ? Rest
  : Name;

/** What is read of a type: the structure that is declared for its name, or anything. */
export type ValueOf<Name extends string> =
  Bare<Name> extends keyof LibvmiKernelTypes
    ? LibvmiKernelTypes[Bare<Name>]
    : // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
      any;
