import { expect, it } from 'vitest';
import { flameGraph } from '../../../lib/text/flame.js';

it('draws each function as wide as the tasks in it, upon its caller', () => {
  const html = flameGraph('stacks of <b>', [
    { frames: ['init', 'entry', 'wait'], count: 3 },
    { frames: ['init', 'entry', 'read'], count: 1 },
  ]);
  const boxes = [...html.matchAll(/left:([\d.]+)%;width:([\d.]+)%;top:(\d+)px.*title="(.*?)"/g)];
  expect(boxes.map(([, left, width, top, title]) => [left, width, top, title])).toEqual([
    ['0.0000', '100.0000', '54', 'all: 4 (100.0 %)'],
    ['0.0000', '100.0000', '36', 'init: 4 (100.0 %)'],
    ['0.0000', '100.0000', '18', 'entry: 4 (100.0 %)'],
    ['0.0000', '25.0000', '0', 'read: 1 (25.0 %)'],
    ['25.0000', '75.0000', '0', 'wait: 3 (75.0 %)'],
  ]);
  expect(html).toContain('<title>stacks of &#60;b&#62;</title>');
});

it('lets no name be markup', () => {
  const html = flameGraph('t', [
    { frames: ['"><script>alert(1)</script>', '\u001b[31m'], count: 1 },
  ]);
  expect(html.match(/<script>/g)).toHaveLength(1);
  expect(html).not.toContain('\u001b');
  expect(flameGraph('nothing', [])).toContain('all: 0');
});
