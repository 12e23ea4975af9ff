import { hex } from '../../errors.js';
import { PAGE_SCRIPT, PAGE_STYLE } from './page.js';
import type { Slice } from './slices.js';
import { sliceName, type TraceHeader, type TraceWriter } from './writer.js';

/** What a row of the page's data is; lib/monitor/trace/page.ts reads it. */
const KIND = { task: 0, kthread: 1, idle: 2, missed: 3 } as const;

/**
 * One page with the timeline and what shows it: it needs no other file and no network. Slices are
 * rows of numbers; names and CR3 values are listed once, where they first occur.
 */
export class HtmlWriter implements TraceWriter {
  readonly #names = new Map<string, number>();
  readonly #spaces = new Map<string, number>();

  begin({ name, cpus }: TraceHeader): string {
    const title = escapeHtml(name);
    return [
      '<!doctype html>',
      '<html lang="en"><head><meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      `<title>${title}</title><style>${PAGE_STYLE}</style></head><body>`,
      `<header><h1>${title}</h1><p id="facts"></p>`,
      '<input id="search" type="search" placeholder="PID, name or CR3  ( / )" autocomplete="off">',
      '<output id="hits"></output></header>',
      '<main><canvas id="line" tabindex="0" aria-label="timeline of the CPUs"></canvas>',
      '<div id="tip" hidden></div>',
      '<p class="keys">Wheel or + and − zoom, drag or arrow keys move, double click shows all, Enter goes to the next hit. Orange: switches that nobody saw.</p></main>',
      '<section><table><thead><tr><th>PID</th><th>Name</th><th>Slices</th><th>Time</th>',
      '<th>Share</th><th class="bar"></th><th>CR3</th></tr></thead>',
      '<tbody id="share"></tbody></table></section>',
      `<script>const CPUS=${inScript(cpus)},ROWS=[];const names=[],spaces=[];`,
      'const N=(i,t)=>{names[i]=t},S=(i,t)=>{spaces[i]=t},R=(...r)=>{ROWS.push(r)};',
      '',
    ].join('\n');
  }

  slice(slice: Slice): string {
    const { task, cr3 } = slice;
    const kind =
      task === undefined
        ? KIND.missed
        : task.idle
          ? KIND.idle
          : task.kthread
            ? KIND.kthread
            : KIND.task;
    const [name, newName] = place(this.#names, 'N', sliceName({ ...slice, missed: 0 }));
    const [space, newSpace] = place(this.#spaces, 'S', cr3 === null ? '-' : hex(cr3));
    const row = [
      ...[slice.cpu, slice.start, slice.end - slice.start, kind, name],
      ...[task?.pid ?? -1, task?.tgid ?? -1, space, slice.missed, slice.exact ? 1 : 0],
    ];
    return `${newName}${newSpace}R(${row.join(',')});\n`;
  }

  end(): string {
    return `${PAGE_SCRIPT}</script></body></html>\n`;
  }
}

/** The number of a text, and the call that tells the page of it if it is new. */
function place(known: Map<string, number>, call: 'N' | 'S', text: string): [number, string] {
  const found = known.get(text);
  if (found !== undefined) return [found, ''];
  known.set(text, known.size);
  return [known.size - 1, `${call}(${known.size - 1},${inScript(text)});`];
}

/** JSON that no HTML parser takes for markup. */
function inScript(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c').replaceAll('\u2028', '\\u2028');
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
