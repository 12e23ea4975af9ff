import { hex } from '../../errors.js';
import type { Guest } from '../../index.js';
import { bytesText } from '../../text/printable.js';
import { pairs } from '../../text/table.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const info: Command = {
  name: 'info',
  summary: 'show the kernel that was found, how, and where its memory is',
  operands: [TARGET],
  options: { ...JSON_OPTION, ...ATTACH_OPTIONS },
  examples: ['vmi info qemu:4242', 'vmi info qemu:4242 --json | jq -r .release'],
  run({ has, out, withGuest }) {
    return withGuest(async (guest, attachMilliseconds) => {
      const facts = guestFacts(guest, attachMilliseconds);
      if (has('json')) {
        out.json([facts]);
        return EXIT.done;
      }
      const { located, by, symbols, types, cached } = facts.found;
      const pv = facts.addressing === 'machine';
      out.lines(
        pairs(
          [
            ['target', facts.target],
            ['source', facts.source],
            [
              'can',
              Object.entries(facts.capabilities)
                .filter(([, can]) => can)
                .map(([name]) => name)
                .join(', ') || 'read',
            ],
            [
              'memory',
              `${bytesText(BigInt(facts.memory))} ${facts.sparse ? 'somewhere in' : 'in'} ${facts.ranges.map(rangeText).join(', ')}`,
            ],
            ['release', facts.release],
            ['banner', facts.banner],
            ['build-id', facts.buildId ?? 'none'],
            ['found', `by ${located}: ${by}`],
            ...(facts.kernels.length < 2 ? [] : facts.kernels).map((one): [string, string] => [
              `kernel ${one.number}`,
              kernelText(one, facts.found.chosen),
            ]),
            ['symbols', symbols],
            ['types', types],
            ['cache', cached ? 'knew this kernel' : 'did not know this kernel'],
            ['cr3', `${facts.cr3} (the kernel's own page table)`],
            ['levels', String(facts.levels)],
            [
              'image',
              `${facts.image} at ${pv ? 'pseudo-physical' : 'physical'} ${facts.imagePhysical}, ${slideText(facts.kaslr)}`,
            ],
            ['page offset', facts.pageOffset],
            [
              'addresses',
              pv
                ? "of the machine (a PV guest of Xen): CR3 and page tables hold them; 'vmi translate --machine' gives the guest's own"
                : 'what the guest itself calls physical',
            ],
            ['isolation', facts.pti ? 'on (PTI): CR3 of user mode has bit 12 set' : 'off'],
            ['cpus', String(facts.cpus)],
            ['attached in', `${facts.attachMilliseconds} ms`],
          ],
          out.styles,
        ),
      );
      return EXIT.done;
    });
  },
};

/** What `vmi info --json` prints. */
export function guestFacts({ target, memory, kernel }: Guest, attachMilliseconds: number) {
  const { located, by, symbols, types, chosen, cached } = kernel.provenance;
  return {
    target,
    source: memory.description,
    live: memory.live,
    addressing: memory.addressing,
    capabilities: memory.capabilities,
    memory: Number(memory.size),
    sparse: memory.sparse,
    ranges: memory.ranges.map(({ start, length }) => ({ start: hex(start), length: hex(length) })),
    release: kernel.release,
    banner: kernel.banner,
    buildId: kernel.buildId ?? null,
    found: { located, by, symbols, types, chosen: chosen ?? null, cached },
    kernels: kernel.inRam.map((one) => ({
      number: one.number,
      release: one.release,
      physical: hex(one.physical),
      time: one.time === undefined ? null : new Date(Number(one.time) * 1000).toISOString(),
      ended: one.ended ?? null,
      chosen: one.chosen,
    })),
    cr3: hex(kernel.cr3),
    levels: kernel.levels,
    image: hex(kernel.image.virtual),
    imagePhysical: hex(kernel.p2m?.ofImage(kernel.image.virtual) ?? kernel.image.physical),
    kaslr: kernel.kaslr === undefined ? null : hex(kernel.kaslr),
    pageOffset: hex(kernel.pageOffset),
    pti: kernel.pti,
    cpus: kernel.cpuCount,
    attachMilliseconds: Math.round(attachMilliseconds * 10) / 10,
  };
}

type KernelFacts = ReturnType<typeof guestFacts>['kernels'][number];

function kernelText(kernel: KernelFacts, why: string | null): string {
  const { release, physical, time, ended, chosen } = kernel;
  const facts = [`${release} at ${physical}`];
  if (time !== null) facts.push(`its clock at ${time}`);
  if (ended !== null) facts.push(ended);
  if (chosen) facts.push(why === null ? 'this one' : `this one: ${why}`);
  return facts.join(', ');
}

function slideText(kaslr: string | null): string {
  if (kaslr === null) return 'how far KASLR moved it is not known';
  return kaslr === '0x0' ? 'not moved by KASLR' : `moved by ${kaslr} (KASLR)`;
}

function rangeText({ start, length }: { start: string; length: string }): string {
  return `${start}–${hex(BigInt(start) + BigInt(length) - 1n)}`;
}
