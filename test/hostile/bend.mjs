// @ts-check
/**
 * Bends a guest: what a hostile kernel, a rootkit or broken RAM would make of it. The seed says
 * how.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { Random } from './random.mjs';

/** @typedef {import('./survey.mjs').Survey} Survey */
/** @typedef {import('./survey.mjs').Place} Place */
/** @typedef {{ at: bigint, bytes: Buffer }} Patch at a physical address */

/**
 * @typedef {object} Bend
 * @property {number} seed
 * @property {string[]} what what was bent, for people
 * @property {Patch[]} patches
 * @property {boolean} hides whether tasks may be missing from a list without an error, as after a
 *   proper list_del
 */

/**
 * Addresses of any sort, and words that are none.
 * @param {Random} random
 * @param {Survey} survey
 * @param {Place} place
 * @returns {bigint}
 */
function wildValue(random, survey, place) {
  const direct = () => survey.pageOffset + (random.u64() % survey.end);
  switch (random.below(16)) {
    case 0:
      return 0n;
    case 1:
      return 0xffff_ffff_ffff_ffffn;
    case 2:
      return 0xffff_ffff_ffff_fff8n;
    case 3:
      return place.self;
    case 4:
      return direct() & ~7n;
    case 5:
      return direct() | 1n;
    case 6:
      return direct() & ~0xfffn;
    case 7:
      return random.u64();
    case 8:
      return random.u64() & 0x7fff_ffff_fff8n;
    case 9:
      return 0xdead_0000_0000_0122n;
    case 10:
      return 0xffff_ffff_8000_0000n + BigInt(random.below(1 << 30));
    case 11:
      return 0xffff_c900_0000_0000n + BigInt(random.below(1 << 30));
    case 12:
      return random.pick(survey.addresses);
    case 13:
      return BigInt(random.below(1 << 16));
    case 14:
      return (direct() & ~7n) | 2n;
    default:
      return random.pick(survey.addresses) + BigInt(random.below(1 << 14));
  }
}

/**
 * A value for a pointer: what other places of its kind hold, or lead to, or anything.
 * @param {Random} random
 * @param {Survey} survey
 * @param {Place} place
 * @param {Place[]} alike
 */
function pointer(random, survey, place, alike) {
  if (random.chance(60)) return random.pick(alike).self & (random.chance(80) ? ~8n : ~0n);
  return wildValue(random, survey, place);
}

/** @param {Random} random @param {number} size */
function number(random, size) {
  const value = random.pick([
    0n,
    1n,
    2n,
    31n,
    32n,
    33n,
    63n,
    64n,
    255n,
    4096n,
    0x7fff_ffffn,
    0x8000_0000n,
    0xffff_ffffn,
    0xffff_ffff_ffff_ffffn,
    random.u64(),
  ]);
  return word(value, size);
}

/** @param {bigint} value @param {number} size @returns {Buffer} */
function word(value, size) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  return bytes.subarray(0, size);
}

/** @typedef {(random: Random, survey: Survey, bend: Bend, file: GuestFile) => void} Recipe */

/** @param {Survey} survey @param {string} group @returns {Place[]} */
const group = (survey, group) => survey.places.get(group) ?? [];

/**
 * Bends places of one group with values made by `make`.
 * @param {string} name
 * @param {(random: Random, survey: Survey, place: Place, alike: Place[]) => Buffer} make
 * @returns {Recipe}
 */
const places = (name, make) => (random, survey, bend) => {
  const alike = group(survey, name);
  for (let count = 1 + random.below(3); count > 0; count--) {
    const place = random.pick(alike);
    const bytes = make(random, survey, place, alike);
    bend.what.push(`${place.what} = ${bytes.toString('hex')}`);
    bend.patches.push({ at: place.physical, bytes });
  }
};

/** @param {Random} random @param {Survey} survey @param {Place} place @param {Place[]} alike */
const anyPointer = (random, survey, place, alike) =>
  word(pointer(random, survey, place, alike), place.size);

/**
 * Two nodes joined both ways: the loop, or the ring apart, that back pointers alone do not show.
 * @param {string} name
 * @returns {Recipe}
 */
const ring = (name) => (random, survey, bend) => {
  const nexts = group(survey, name).filter(({ what }) => what.endsWith('.next'));
  const from = random.pick(nexts);
  const to = random.pick(nexts);
  bend.what.push(`${from.what} <-> ${to.what}`);
  bend.patches.push({ at: from.physical, bytes: word(to.self, 8) });
  bend.patches.push({ at: to.physical + 8n, bytes: word(from.self, 8) });
  bend.hides = true;
};

/** A list that leads into another. @type {Recipe} */
const across = (random, survey, bend) => {
  const lists = ['tasks', 'threads', 'pids'];
  const from = random.pick(group(survey, random.pick(lists)));
  const to = random.pick(group(survey, random.pick(lists)));
  bend.what.push(`${from.what} -> ${to.what}`);
  bend.patches.push({ at: from.physical, bytes: word(to.self & ~8n, 8) });
  if (random.chance(50)) {
    bend.patches.push({ at: to.physical, bytes: word(from.self & ~8n, 8) });
    bend.hides = true;
  }
};

/** @type {Recipe} */
const endlessComm = (random, survey, bend) => {
  for (let count = 1 + random.below(4); count > 0; count--) {
    const place = random.pick(group(survey, 'comm'));
    const byte = random.pick([0x41, 0x1b, 0x0a, 0xff, 0xe2, 0x7f, 0x5c]);
    bend.what.push(`${place.what} without end`);
    bend.patches.push({
      at: place.physical,
      bytes: random.chance(50) ? Buffer.alloc(64, byte) : random.bytes(16),
    });
  }
};

/** A node of the PID tree that leads to nodes above it, below it, or itself. @type {Recipe} */
const tree = (random, survey, bend) => {
  const slots = group(survey, 'tree');
  for (let count = 1 + random.below(6); count > 0; count--) {
    const place = random.pick(slots);
    const target = random.chance(70)
      ? (random.pick(slots).self & ~0x1fn) | 2n
      : random.pick([
          wildValue(random, survey, place),
          (256n << 2n) | 2n,
          4098n,
          0xffff_ffff_ffff_fffen,
          0xffff_ffff_ffff_fffcn,
        ]);
    bend.what.push(`${place.what} = 0x${target.toString(16)}`);
    bend.patches.push({ at: place.physical, bytes: word(target, 8) });
  }
  if (random.chance(40)) shifts(random, survey, bend);
};

/** @param {Random} random @param {Survey} survey @param {Bend} bend */
function shifts(random, survey, bend) {
  for (const place of group(survey, 'shifts')) {
    if (random.chance(60)) continue;
    const shift = random.pick([0, 6, 12, 18, 54, 60, 66, 7, 255]);
    bend.what.push(`${place.what} = ${shift}`);
    bend.patches.push({ at: place.physical, bytes: Buffer.of(shift) });
  }
}

/**
 * Every slot of a node leads back to a node: as many paths as a tree of full depth can have. @type
 * {Recipe}
 */
const bush = (random, survey, bend) => {
  const at = (random.u64() % (survey.end - 0x10_0000n)) & ~0xfffn;
  const nodeOf = group(survey, 'shifts')[0];
  const slotOf = group(survey, 'tree')[1];
  const head = group(survey, 'tree')[0];
  if (nodeOf === undefined || slotOf === undefined || head === undefined) return;
  // Nodes a page apart, each with all slots on the next one.
  const slots = Number((slotOf.self & 0xfffn) - (nodeOf.self & 0xfffn));
  const top = random.pick([60, 36, 24]);
  for (let shift = top, page = 0n; shift >= 0; shift -= 6, page++) {
    const node = at + page * 4096n;
    const bytes = Buffer.alloc(slots + 512);
    bytes[0] = shift;
    for (let slot = 0; slot < 64; slot++)
      bytes.writeBigUInt64LE(
        survey.pageOffset + node + 4096n + 64n + (shift === 0 ? 0n : 2n),
        slots + 8 * slot,
      );
    bend.patches.push({ at: node + 64n, bytes });
  }
  bend.what.push(`a bush for a PID tree at 0x${at.toString(16)}`);
  bend.patches.push({ at: head.physical, bytes: word(survey.pageOffset + at + 66n, 8) });
  bend.hides = true;
};

/** @param {Random} random @param {Survey} survey @param {Place} place */
const entry = (random, survey, place) => {
  const table = place.physical & ~0xfffn;
  const value = random.pick([
    0n,
    table | 0x63n,
    table | 0xe3n,
    survey.root | 0x63n,
    (random.u64() % survey.end) | 0x63n,
    (random.u64() % survey.end) | 0xe3n,
    random.u64() | 1n,
    random.u64(),
    random.pick(survey.roots) | 0x67n,
    0x000f_ffff_ffff_f063n,
    0xffff_ffff_ffff_ffffn,
  ]);
  return word(value, 8);
};

/** A whole page of entries that lead to their own page. @type {Recipe} */
const selfTable = (random, survey, bend) => {
  const place = random.pick(group(survey, 'tables'));
  const table = place.physical & ~0xfffn;
  const value = table | random.pick([0x63n, 0x67n, 0xe3n]);
  const bytes = Buffer.alloc(4096);
  for (let at = 0; at < 4096; at += 8) bytes.writeBigUInt64LE(value, at);
  bend.what.push(`the whole table of ${place.what} leads to itself`);
  bend.patches.push({ at: table, bytes });
};

/** Any bytes of what a task's answer depends on. @type {Recipe} */
const noise = (random, survey, bend) => {
  const task = random.pick(survey.tasks);
  for (let count = 1 + random.below(16); count > 0; count--) {
    const range = random.pick(task.reads);
    const at = range.start + (random.u64() % (range.end - range.start));
    bend.patches.push({ at, bytes: random.bytes(1 + random.below(16)) });
  }
  bend.what.push(`noise around task ${task.pid}`);
  bend.hides = true;
};

/**
 * Recipes for what a guest that is attached reads again at every operation. @type {readonly
 * (readonly [weight: number, recipe: Recipe])[]}
 */
const LIVE = [
  [12, places('tasks', anyPointer)],
  [12, places('threads', anyPointer)],
  [8, places('pids', anyPointer)],
  [6, ring('tasks')],
  [6, ring('threads')],
  [8, across],
  [14, places('pointers', anyPointer)],
  [8, places('numbers', (random, _survey, place) => number(random, place.size))],
  [6, places('levels', (random, _survey, place) => number(random, place.size))],
  [6, endlessComm],
  [12, tree],
  [3, bush],
  [
    6,
    places('pgds', (random, survey, place, alike) =>
      random.chance(40)
        ? word(
            survey.pageOffset + random.pick(survey.roots) + BigInt(random.pick([0, 1, 8, 4096])),
            8,
          )
        : anyPointer(random, survey, place, alike),
    ),
  ],
  [10, places('tables', entry)],
  [3, selfTable],
  [
    10,
    places('globals', (random, survey, place, alike) =>
      place.size === 8
        ? anyPointer(random, survey, place, alike)
        : number(random, place.size).subarray(0, place.size),
    ),
  ],
  [8, noise],
];

/** VMCOREINFO with other numbers, names, lengths; or a second one. @type {Recipe} */
const vmcoreinfo = (random, survey, bend, file) => {
  if (survey.vmcoreinfo.length === 0) return;
  for (const range of random.chance(50) ? survey.vmcoreinfo : [random.pick(survey.vmcoreinfo)]) {
    const text = file.read(range.start, 2048);
    const nul = text.indexOf(0);
    const length = nul < 0 ? text.length : nul;
    switch (random.below(6)) {
      case 0: {
        // One value of one line.
        const lines = text.toString('latin1', 0, length).split('\n');
        const line = random.below(lines.length);
        const key = (lines[line] ?? '').split('=')[0] ?? '';
        lines[line] =
          `${key}=${random.pick(['', '0', '-1', 'ffffffffffffffff', '99999999999999999999', '-9223372036854775808', random.u64().toString(16), random.u64().toString(), 'x'.repeat(300)])}`;
        bend.what.push(`VMCOREINFO ${lines[line].slice(0, 60)}`);
        bend.patches.push({
          at: range.start,
          bytes: Buffer.from(`${lines.join('\n')}\0`, 'latin1').subarray(0, 2048),
        });
        break;
      }
      case 1:
        bend.what.push('VMCOREINFO without end');
        bend.patches.push({
          at: range.start + BigInt(length),
          bytes: Buffer.alloc(2048 - length, random.pick([0x41, 0x0a, 0x3d])),
        });
        break;
      case 2:
        bend.what.push('VMCOREINFO cut off');
        bend.patches.push({ at: range.start + BigInt(random.below(length)), bytes: Buffer.of(0) });
        break;
      case 3: {
        bend.what.push('VMCOREINFO with noise');
        for (let i = 0; i < 8; i++)
          bend.patches.push({
            at: range.start + BigInt(10 + random.below(length)),
            bytes: Buffer.of(0x30 + random.below(10)),
          });
        break;
      }
      default: {
        // A copy that says something else, where a copy may be.
        const at = (random.u64() % survey.end) & ~0xfffn;
        const copy = Buffer.from(text.subarray(0, length + 1));
        for (let i = 0; i < 4; i++) copy[10 + random.below(length - 10)] = 0x30 + random.below(10);
        bend.what.push(`a second VMCOREINFO at 0x${at.toString(16)}`);
        bend.patches.push({ at, bytes: copy });
        bend.hides = true;
      }
    }
  }
};

/** @param {string} prefix @returns {Recipe} */
const table = (prefix) => (random, survey, bend) => {
  const named = [...survey.tables].filter(([name]) => name.startsWith(prefix));
  if (named.length === 0) return;
  const [name, range] = random.pick(named);
  const many = random.pick([1, 1, 4, 64]);
  for (let i = 0; i < many; i++) {
    let at = range.start + (random.u64() % (range.end - range.start));
    if (random.chance(50)) at &= ~3n;
    const bytes = random.chance(50)
      ? random.bytes(1 + random.below(8))
      : Buffer.alloc(1 + random.below(8), random.pick([0, 0xff, 0x7f, 0x80]));
    bend.patches.push({ at, bytes });
  }
  bend.what.push(`${many} places of ${name}`);
};

/** Words of the types that are asked for: names, counts, types, offsets. @type {Recipe} */
const btf = (random, survey, bend) => {
  const words = group(survey, 'btf');
  if (words.length === 0) return;
  for (let count = random.pick([1, 1, 2, 8, 200]); count > 0; count--) {
    const place = random.pick(words);
    const bytes = random.chance(30) ? word(BigInt(random.below(1 << 17)), 4) : number(random, 4);
    if (bend.what.length < 4) bend.what.push(`${place.what} = ${bytes.toString('hex')}`);
    bend.patches.push({ at: place.physical, bytes });
  }
};

/**
 * Recipes for what only attaching reads. @type {readonly (readonly [weight: number, recipe:
 * Recipe])[]}
 */
const STILL = [
  [10, vmcoreinfo],
  [12, table('kallsyms')],
  [6, table('BTF')],
  [14, btf],
  [3, table('banner')],
  [
    10,
    places('globals', (random, survey, place, alike) =>
      place.size === 8 ? anyPointer(random, survey, place, alike) : number(random, place.size),
    ),
  ],
  [8, places('tables', entry)],
  [3, selfTable],
];

/**
 * Bends that a seed determines.
 *
 * @param {number} seed
 * @param {Survey} survey
 * @param {GuestFile} file
 * @param {'live' | 'still'} kind of what an attached guest reads all the time, or of what attaching
 *   reads
 * @returns {Bend}
 */
export function bendOf(seed, survey, file, kind) {
  const random = new Random((BigInt(seed) << 1n) | (kind === 'live' ? 0n : 1n));
  /** @type {Bend} */
  const bend = { seed, what: [], patches: [], hides: false };
  const recipes = kind === 'live' || random.chance(15) ? LIVE : STILL;
  const total = recipes.reduce((sum, [weight]) => sum + weight, 0);
  for (let count = random.chance(70) ? 1 : 2 + random.below(3); count > 0; count--) {
    let at = random.below(total);
    for (const [weight, recipe] of recipes) {
      at -= weight;
      if (at >= 0) continue;
      recipe(random, survey, bend, file);
      break;
    }
  }
  // Links of both directions may agree by chance.
  const links = bend.what.filter((what) => /(?:tasks|thread_\w+)\.(?:next|prev)/.test(what));
  if (links.some((what) => what.includes('.next')) && links.some((what) => what.includes('.prev')))
    bend.hides = true;
  bend.patches = bend.patches.filter(
    ({ at, bytes }) => at >= 0n && at + BigInt(bytes.length) <= survey.end,
  );
  return bend;
}

/** A file of guest RAM that is bent and straightened in place. */
export class GuestFile {
  #fd;
  /** @type {Patch[]} */ #before = [];

  /** @param {string} path */
  constructor(path) {
    this.#fd = openSync(path, 'r+');
  }

  /** @param {bigint} at @param {number} length @returns {Buffer} */
  read(at, length) {
    const bytes = Buffer.alloc(length);
    readSync(this.#fd, bytes, 0, length, Number(at));
    return bytes;
  }

  /** @param {Bend} bend */
  bend(bend) {
    for (const { at, bytes } of bend.patches) {
      this.#before.push({ at, bytes: this.read(at, bytes.length) });
      writeSync(this.#fd, bytes, 0, bytes.length, Number(at));
    }
  }

  /** Undoes every bend, the last one first. */
  straighten() {
    for (let patch = this.#before.pop(); patch !== undefined; patch = this.#before.pop()) {
      writeSync(this.#fd, patch.bytes, 0, patch.bytes.length, Number(patch.at));
    }
  }

  close() {
    this.straighten();
    closeSync(this.#fd);
  }
}
