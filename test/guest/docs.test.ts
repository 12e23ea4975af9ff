import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blocksOf, isCode, missingLine, pages, Runner, root } from '../docs/blocks.mjs';
import { docsGuest } from '../docs/guest.mjs';
import type { LabGuest } from '../lab/guest.mjs';

const cli = join(root, 'dist/cli/main.js');
/** Pages whose blocks have a test of their own. */
const ELSEWHERE = ['docs/exploring.md'];

describe('the documentation, on a running guest', () => {
  let lab: LabGuest;
  let runner: Runner;
  const folder = mkdtempSync(join(root, 'build', 'docs-'));

  beforeAll(async () => {
    lab = await docsGuest();
    runner = new Runner(`qemu:${lab.pid}`, folder);
  });
  afterAll(async () => {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  for (const page of pages().filter((path) => !ELSEWHERE.includes(path))) {
    const blocks = blocksOf(readFileSync(join(root, page), 'utf8')).filter(
      (block) => isCode(block) && block.reason === undefined,
    );
    if (blocks.length === 0) continue;
    it(`${page} does what it says`, async () => {
      for (const block of blocks) {
        for (const { part, done } of await runner.run(block)) {
          const where = `${page}:${block.line}: ${part.input}\n${done.output}`;
          expect(done.status, where).toBe(part.exit);
          expect(missingLine(part.printed, done.output), where).toBeUndefined();
        }
      }
    });
  }

  it('docs/volatility.md: btf and vmcoreinfo are what the guest has itself', async () => {
    const vmi = (format: string) =>
      execFileSync(process.execPath, [cli, 'profile', runner.target, '--format', format], {
        maxBuffer: 1 << 26,
      });
    expect(vmi('btf').equals(await lab.btf())).toBe(true);
    const [, address, length] = /^(?:0x)?([0-9a-f]+) ([0-9a-f]+)/
      .exec(await lab.shell('cat /sys/kernel/vmcoreinfo'))!
      .map((digits) => Number.parseInt(digits, 16));
    // The note's header is before the text, and zeroes are behind it.
    const note = join(folder, 'note');
    await lab.dumpRange(note, address!, length!);
    expect(readFileSync(note, 'latin1')).toContain(vmi('vmcoreinfo').toString('latin1'));
  });
});
