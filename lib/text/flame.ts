import { printable } from './printable.js';

/** Height of a row, and the narrowest share of the width that is drawn. */
const ROW = 18;
const NARROWEST = 0.0005;
/** Deepest stack that is drawn. */
const MAX_DEPTH = 256;

interface Node {
  readonly name: string;
  count: number;
  readonly below: Map<string, Node>;
}

/** One stack, the outermost frame first, and how many have it. */
export interface CountedStack {
  readonly frames: readonly string[];
  readonly count: number;
}

/**
 * A flame graph as one HTML page that needs nothing else: each box is a function, as wide as the
 * number of tasks in it, upon the one that called it. A click on a box makes it as wide as the
 * page.
 */
export function flameGraph(title: string, stacks: Iterable<CountedStack>): string {
  const root: Node = { name: 'all', count: 0, below: new Map() };
  let height = 0;
  for (const { frames, count } of stacks) {
    root.count += count;
    let node = root;
    for (const name of frames.slice(0, MAX_DEPTH)) {
      let next = node.below.get(name);
      if (next === undefined) {
        next = { name, count: 0, below: new Map() };
        node.below.set(name, next);
      }
      next.count += count;
      node = next;
    }
    height = Math.max(height, Math.min(frames.length, MAX_DEPTH));
  }
  const boxes: string[] = [];
  draw(root, 0, 1, height, boxes, root.count);
  return page(title, boxes, (height + 1) * ROW);
}

function draw(
  node: Node,
  left: number,
  width: number,
  row: number,
  boxes: string[],
  total: number,
): void {
  if (width < NARROWEST) return;
  const share = ((100 * node.count) / Math.max(total, 1)).toFixed(1);
  const label = escapeHtml(node.name);
  const style = `left:${percent(left)};width:${percent(width)};top:${row * ROW}px;background:${colour(node.name)}`;
  const tip = `${label}: ${node.count} (${share} %)`;
  boxes.push(`<div style="${style}" title="${tip}">${label}</div>`);
  const below = [...node.below.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  let at = left;
  for (const next of below) {
    const its = (width * next.count) / node.count;
    draw(next, at, its, row - 1, boxes, total);
    at += its;
  }
}

function percent(share: number): string {
  return `${(share * 100).toFixed(4)}%`;
}

/** A warm colour that is the same for a name each time. */
function colour(name: string): string {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.charCodeAt(0)) >>> 0;
  return `hsl(${20 + (hash % 35)} 85% ${62 + ((hash >>> 8) % 14)}%)`;
}

function escapeHtml(text: string): string {
  const safe = printable(text);
  return safe.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function page(title: string, boxes: readonly string[], height: number): string {
  return `<!doctype html>
<meta charset="utf-8">
<title>${escapeHtml(title)}</title>
<style>
body { font: 12px sans-serif; margin: 1em; }
#graph { position: relative; height: ${height}px; overflow: hidden; }
#graph div { position: absolute; height: ${ROW - 2}px; line-height: ${ROW - 2}px; overflow: hidden;
  white-space: nowrap; box-sizing: border-box; border-right: 1px solid #fff; padding-left: 2px;
  cursor: pointer; }
</style>
<h3>${escapeHtml(title)}</h3>
<div id="graph">
${boxes.join('\n')}
</div>
<script>
const boxes = [...document.querySelectorAll('#graph div')];
const places = boxes.map(({ style }) => [parseFloat(style.left), parseFloat(style.width)]);
boxes.forEach((box, i) => box.addEventListener('click', () => {
  const [left, width] = places[i];
  boxes.forEach((other, k) => {
    const [l, w] = places[k];
    other.style.left = (l - left) * 100 / width + '%';
    other.style.width = w * 100 / width + '%';
  });
}));
</script>
`;
}
