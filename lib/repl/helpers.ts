import { type AddressLike, toAddress } from '../address.js';
import { hex } from '../errors.js';
import type {
  Guest,
  GuestCpu,
  ListOptions,
  SpaceOptions,
  StructType,
  Task,
  TaskList,
  WalkResult,
} from '../index.js';
import { symbolText } from '../text/symbol.js';

/** An address, or a symbol that has one. */
export type Place = AddressLike | string;

/** What the REPL defines beside JavaScript's own: short names for what a guest can be asked. */
export interface Helpers {
  ps(options?: ListOptions): TaskList;
  task(pid: number): Task;
  cr3(pid: number): bigint | null;
  who(cr3: AddressLike): TaskList;
  cpus(): GuestCpu[];
  /** A name's address, or an address's name. */
  sym(what: Place): bigint | string;
  read(place: Place, length?: number, space?: SpaceOptions): Buffer;
  /** Physical address of a virtual one. */
  translate(place: Place, space?: SpaceOptions): bigint;
  /** Every level of the page walk. */
  walk(place: Place, space?: SpaceOptions): WalkResult;
  type(name: string): StructType;
  hex(value: bigint | number | null): string | null;
}

/** @param origins is told the guest address of every buffer that `read` gives */
export function helpers(guest: Guest, origins: WeakMap<Uint8Array, bigint>): Helpers {
  const addressOf = (place: Place) =>
    typeof place === 'string' ? guest.symbol(place) : toAddress(place);
  return {
    ps(options) {
      return guest.tasks(options);
    },
    task(pid) {
      return guest.task(pid);
    },
    cr3(pid) {
      return guest.pidToCr3(pid);
    },
    who(cr3) {
      return guest.cr3ToTasks(cr3);
    },
    cpus() {
      return guest.cpus();
    },
    sym(what) {
      if (typeof what === 'string') return guest.symbol(what);
      const address = toAddress(what);
      return symbolText(address, guest.kernel.symbols.at(address));
    },
    read(place, length = 64, space = {}) {
      const address = addressOf(place);
      const bytes = guest.read(address, length, space);
      origins.set(bytes, address);
      return bytes;
    },
    translate(place, space = {}) {
      return guest.translate(addressOf(place), space);
    },
    walk(place, space = {}) {
      return guest.walk(addressOf(place), space);
    },
    type(name) {
      return guest.type(name);
    },
    hex(value) {
      return value === null ? null : hex(value);
    },
  };
}
