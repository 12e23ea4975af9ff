import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HtmlWriter } from '../../../lib/monitor/trace/html.js';
import { which } from '../../lab/run.mjs';
import { at, EVENTS, slicesOf, THREAD, traced, written } from '../support/traced.js';

/** Milliseconds that a browser may take to start, on a host that is busy. */
const TIMEOUT = 120_000;

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const found = await Promise.all(names.map((name) => which(name)));
const CHROMIUM = found.find((path) => path !== undefined);
if (CHROMIUM === undefined)
  console.log(
    `skipped: the page of a trace in a browser, since there is none (${names.join(', ')})`,
  );

/**
 * What a user does, by a script at the end of the page. It runs in the page's own scope, and leaves
 * what it saw as the text of an element.
 */
const USER = `
const seen={title:document.title,facts:$('facts').textContent,rows:[...$('share').rows].map(
  row=>[...row.cells].map(cell=>cell.textContent))};
const type=text=>{const box=$('search');box.value=text;
  box.dispatchEvent(new Event('input',{bubbles:true}));return $('hits').textContent};
const press=(key,on=document.body)=>on.dispatchEvent(new KeyboardEvent('keydown',{key,bubbles:true}));
const shown=()=>[from,from+span];
const point=row=>{const box=canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent('pointermove',{clientX:box.left+x(row[1]+row[2]/2),
    clientY:box.top+TOP+CPUS.indexOf(row[0])*(LANE+GAP)+LANE/2}));return tip.textContent};
const pixel=row=>[...pen.getImageData(Math.round((x(row[1]+row[2]/2))*devicePixelRatio),
  Math.round((TOP+CPUS.indexOf(row[0])*(LANE+GAP)+LANE-8)*devicePixelRatio),1,1).data].join();
seen.searches=Object.fromEntries(['7','kworker','A,"B','0x1000','0x7000','nobody',''].map(t=>[t,type(t)]));
const needle=ROWS.find(row=>names[row[4]]==='needle');
seen.plain=pixel(needle);
type('needle');press('Enter',$('search'));
seen.hit=$('hits').textContent;seen.slice=[needle[1],needle[1]+needle[2]];seen.around=shown();
seen.tip=point(needle);
seen.colour=pixel(needle);
press('Escape',$('search'));seen.escaped=$('hits').textContent;
const before=span;press('+');seen.zoomed=span<before;press('-');press('-');
canvas.dispatchEvent(new Event('dblclick'));seen.all=shown();
$('share').rows[1].click();seen.clicked=$('search').value+': '+$('hits').textContent;
seen.wider=document.documentElement.scrollWidth-innerWidth;seen.width=innerWidth;
const told=document.createElement('pre');told.id='told';told.textContent=JSON.stringify(seen);
document.body.append(told);
`;

/** A slice of a microsecond, in a trace of four seconds. */
const NEEDLE = [
  ...EVENTS,
  at(2_000_000, traced(4242, 'needle'), { cpu: 1, cr3: 0x7000n }),
  at(2_000_001, THREAD, { cpu: 1, cr3: 0x7000n }),
  at(4_000_000, THREAD, { cpu: 1, cr3: 0x7000n }),
];

describe.skipIf(CHROMIUM === undefined)('the page of a trace in a browser', () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vmi-page-'));
    const page = written(new HtmlWriter(), slicesOf(NEEDLE)).toString();
    await writeFile(
      join(folder, 'trace.html'),
      page.replace('</body>', `<script>${USER}</script></body>`),
    );
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** What the script saw in a window of a width. */
  async function use(width: number) {
    const { stdout } = await promisify(execFile)(
      CHROMIUM!,
      [
        ...['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--dump-dom'],
        `--user-data-dir=${join(folder, `profile-${width}`)}`,
        `--window-size=${width},800`,
        pathToFileURL(join(folder, 'trace.html')).href,
      ],
      { timeout: 100_000, maxBuffer: 1 << 24 },
    );
    const text = /<pre id="told">(.*?)<\/pre>/s.exec(stdout)?.[1] ?? '';
    return JSON.parse(
      text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&'),
    );
  }

  it('finds a slice of a microsecond in seconds', { timeout: TIMEOUT }, async () => {
    const seen = await use(1400);
    expect(seen.title).toBe('qemu:1 <b>');
    expect(seen.facts).toBe('4.000 s on 2 CPUs, 7 slices seen, 3 switches missed');
    expect(seen.searches).toEqual({
      7: '2 slices',
      kworker: '3 slices',
      'A,"B': '2 slices',
      '0x1000': '3 slices',
      '0x7000': '3 slices',
      nobody: '0 slices',
      '': '',
    });
    expect(seen.hit).toBe('1 of 1');
    const [start, end] = seen.slice;
    expect(end - start).toBe(1_000);
    expect(seen.around[0]).toBeLessThan(start);
    expect(seen.around[1]).toBeGreaterThan(end);
    expect(seen.around[1] - seen.around[0]).toBeLessThan(100_000);
    expect(seen.tip.split('\n')).toEqual([
      'needle',
      'PID 4242',
      'CR3 0x7000',
      '1.999900 s, for 1.0 µs',
      'begin known to a look only',
    ]);
    // It is drawn where it is: what was empty or another's has its colour.
    expect(seen.colour).not.toBe(seen.plain);
    expect(seen.escaped).toBe('');
    expect(seen).toMatchObject({ zoomed: true, all: [0, seen.all[1]] });
    expect(seen.rows.length).toBe(4);
    expect(seen.clicked).toMatch(/^\d+: 1 of \d+$/);
  });

  it('fits into the window of a telephone', { timeout: TIMEOUT }, async () => {
    const seen = await use(390);
    expect(seen.hit).toBe('1 of 1');
    expect(seen.wider).toBeLessThanOrEqual(0);
  });
});
