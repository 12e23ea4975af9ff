/**
 * What BTF says by name beyond types: variables and the constants of enumerations.
 *
 * A VAR is `struct btf_type` (name, info, type) and a word for its linkage. The kernel's own BTF
 * has one for each per-CPU variable only (pahole, btf_encoder.c). An ENUM has pairs (name, value)
 * behind its `struct btf_type`, an ENUM64 triples (name, low, high). Source:
 * Documentation/bpf/btf.rst, 2.2.6, 2.2.14, 2.2.19.
 */
import { type BtfSections, ENUM, ENUM64 } from './btf-sections.js';

const VAR = 14;

/** Number of the type that a variable has; `undefined` when BTF names no such variable. */
export function variableType({ count, words, strings, at }: BtfSections, name: string) {
  const text = stringAt(strings, name);
  if (text === undefined) return undefined;
  for (let id = 1; id <= count; id++) {
    const type = at[id]!;
    if (words[type] === text && kindOf(words[type + 1]!) === VAR) return words[type + 2]!;
  }
  return undefined;
}

/** Number of the first enumeration that has a constant of this name; `undefined` when none has. */
export function constantType({ count, words, strings, at }: BtfSections, name: string) {
  const text = stringAt(strings, name);
  if (text === undefined) return undefined;
  for (let id = 1; id <= count; id++) {
    const type = at[id]!;
    const info = words[type + 1]!;
    const kind = kindOf(info);
    if (kind !== ENUM && kind !== ENUM64) continue;
    const step = kind === ENUM ? 2 : 3;
    const end = type + 3 + (info & 0xffff) * step;
    for (let p = type + 3; p < end; p += step) if (words[p] === text) return id;
  }
  return undefined;
}

function kindOf(info: number): number {
  return (info >>> 24) & 0x1f;
}

/** Offset of a whole string; each is written once (pahole, libbpf). */
function stringAt(strings: Buffer, name: string): number | undefined {
  if (!/^\w{1,512}$/.test(name)) return undefined;
  const found = strings.indexOf(`\0${name}\0`, 0, 'latin1');
  return found < 0 ? undefined : found + 1;
}
