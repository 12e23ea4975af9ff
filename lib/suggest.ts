/** Names looked at before the search for a close one stops: a guest's table may be of any size. */
const MAX_NAMES = 1_000_000;

/**
 * The names most like one that is absent, best first, for error messages: those that only differ by
 * a few letters, then those that contain it or that it contains.
 */
export function closest(name: string, names: Iterable<string>, max = 3): string[] {
  const limit = Math.max(1, Math.min(3, Math.ceil(name.length / 3)));
  const found: { name: string; score: number }[] = [];
  const seen = new Set<string>();
  let looked = 0;
  for (const other of names) {
    if (++looked > MAX_NAMES) break;
    const score = likeness(name, other, limit);
    if (score === undefined || seen.has(other)) continue;
    if (found.length === max && found[max - 1]!.score <= score) continue;
    seen.add(other);
    found.push({ name: other, score });
    found.sort((a, b) => a.score - b.score);
    if (found.length > max) found.pop();
  }
  return found.map((one) => one.name);
}

/** The end of a message that says a name is absent: `; did you mean a, b?`, or nothing. */
export function didYouMean(name: string, names: Iterable<string>): string {
  const close = closest(name, names);
  return close.length === 0 ? '' : `; did you mean ${close.join(', ')}?`;
}

function likeness(name: string, other: string, limit: number): number | undefined {
  if (Math.abs(name.length - other.length) <= limit) {
    const edits = distance(name, other, limit);
    if (edits !== undefined) return edits;
  }
  if (name.length >= 4 && other.includes(name)) return 10 + other.length - name.length;
  if (other.length >= 4 && other.length * 2 > name.length && name.includes(other)) {
    return 10 + name.length - other.length;
  }
  return undefined;
}

/** Edit distance of two strings, `undefined` when more than `limit`. */
function distance(a: string, b: string, limit: number): number | undefined {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    let best = i;
    for (let j = 1; j <= b.length; j++) {
      const same = a.charCodeAt(i - 1) === b.charCodeAt(j - 1) ? 0 : 1;
      const cost = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + same);
      row.push(cost);
      if (cost < best) best = cost;
    }
    if (best > limit) return undefined;
    previous = row;
  }
  const edits = previous[b.length]!;
  return edits <= limit ? edits : undefined;
}
