// Runs in dom0: what the API says of one domain, and how long it takes. Prints one JSON object.
import { attach } from '/project/dist/index.js';

const [name, runs = '3'] = process.argv.slice(2);
const target = { kind: 'libvmi', driver: 'xen', name };
const hex = (value) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value);
const time = async (work) => {
  const start = performance.now();
  const result = await work();
  return [result, performance.now() - start];
};
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const [first, cold] = await time(() => attach(target, { cache: false }));
await first.close();
const attaches = [];
const lists = [];
const threads = [];
const lookUps = [];
for (let run = 0; run < Number(runs); run++) {
  const [guest, ms] = await time(() => attach(target));
  attaches.push(ms);
  lists.push((await time(() => guest.tasks()))[1]);
  threads.push((await time(() => guest.tasks({ threads: true })))[1]);
  lookUps.push((await time(() => guest.pidToCr3(1)))[1]);
  await guest.close();
}

const guest = await attach(target);
const machine = guest.memory.addressing === 'machine';
const both = {};
for (const task of guest.tasks({ threads: true })) {
  const { cr3, pid } = task;
  if (!machine || cr3 === null) continue;
  const pseudo = guest.toPhysical(cr3);
  both[pid] = { pseudo: hex(pseudo), machine: hex(guest.toMachine(pseudo)) };
}
const registers = (await guest.registers()).map(({ vcpu, cr3 }) => ({ vcpu, cr3: hex(cr3) }));
console.log(
  JSON.stringify({
    addressing: guest.memory.addressing,
    cross: guest.crossView().filter(({ missing }) => missing.length > 0).length,
    both,
    registers,
    columns: Array.from(guest.taskColumns({ threads: true }).cr3, hex),
    milliseconds: {
      attach: cold,
      attachAgain: median(attaches),
      list: median(lists),
      listThreads: median(threads),
      lookUp: median(lookUps),
    },
  }),
);
await guest.close();
