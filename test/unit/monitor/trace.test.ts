import { describe, expect, it } from 'vitest';
import { ClockTie } from '../../../lib/monitor/clock-tie.js';
import { HtmlWriter } from '../../../lib/monitor/trace/html.js';
import {
  CsvWriter,
  JsonTraceWriter,
  NdjsonWriter,
} from '../../../lib/monitor/trace/text-writers.js';
import { at, EVENTS, IDLE, SHELL, slicesOf, written } from '../support/traced.js';

describe('Slices', () => {
  it('leaves no gap, and has what was missed as a slice of its own', () => {
    const plain = slicesOf(EVENTS).map(({ cpu, start, end, task, missed }) => [
      ...[cpu, start, end, task?.pid, missed],
    ]);
    expect(plain).toEqual([
      [0, 0, 100_000, 0, 0],
      [0, 100_000, 198_000, 7, 0],
      [0, 198_000, 200_000, undefined, 3],
      [0, 200_000, 300_000, 9, 0],
      [1, 0, 300_000, 7, 0],
    ]);
  });

  it('takes the begin of a slice from the guest where its clock is known', () => {
    const clock = new ClockTie();
    clock.add(5_000n, 150_000n, 150_200n);
    const [idle, shell] = slicesOf([at(100, IDLE), at(200, SHELL, { began: 45_000n })], clock);
    expect(idle).toMatchObject({ start: 0, end: 90_100, exact: false });
    expect(shell).toMatchObject({ start: 90_100, exact: true });
  });

  it('never goes back, whatever a guest says', () => {
    const clock = new ClockTie();
    clock.add(5_000n, 150_000n, 150_200n);
    for (const { start, end } of slicesOf(
      [at(100, IDLE), at(200, SHELL, { began: 1n }), at(300, IDLE), at(310, SHELL, { began: 9n })],
      clock,
    ))
      expect(end).toBeGreaterThanOrEqual(start);
  });
});

describe('a trace', () => {
  it('is JSON, lines of JSON, or CSV', () => {
    const json = JSON.parse(written(new JsonTraceWriter()).toString());
    expect(json.traceEvents).toHaveLength(3 + 5);
    expect(json.traceEvents.at(4)).toMatchObject({
      ph: 'X',
      name: 'a,"b"</script>',
      ts: 100,
      dur: 98,
      args: { pid: 7, cr3: '0x1000', space: 'own' },
    });
    const lines = written(new NdjsonWriter()).toString().trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))[3]).toMatchObject({ missed: 3, cpu: 0 });
    const csv = written(new CsvWriter()).toString().trim().split('\n');
    expect(csv).toHaveLength(6);
    expect(csv[2]).toBe('100000,198000,0,7,7,"a,""b""</script>",0x1000,own,sampled,0');
  });

  it('is a page that no name can break', () => {
    const page = written(new HtmlWriter()).toString();
    expect(page.match(/<script>/g)).toHaveLength(1);
    expect(page.match(/<\/script>/g)).toHaveLength(1);
    expect(page).toContain('qemu:1 &lt;b>');
    expect(page).not.toMatch(/https?:/);
    const script = page.slice(page.indexOf('<script>') + 8, page.indexOf('</script>'));
    // It is JavaScript, and the rows are what was written.
    const rows = new Function(`${script.split('\nconst $=')[0]}return{ROWS,names}`)();
    expect(rows.ROWS).toHaveLength(5);
    expect(rows.names[rows.ROWS[1][4]]).toBe('a,"b"</script>');
    expect(() => new Function(script)).not.toThrow();
  });
});
