#!/usr/bin/env node
// @ts-check
/** The lab by hand: `node test/lab/cli.mjs` prints what it can do. */
import { parseArgs } from 'node:util';
import { bootGuest, openGuest } from './guest.mjs';

const USAGE = `usage:
  cli.mjs boot [options]       boot a guest, print one JSON line when it is ready, run until interrupted
      --suite bookworm|bullseye|trixie|sid|experimental   --flavour cloud|generic|rt   --build NAME (a kernel of test-kernels.mjs)
      --memory MIB  --cpus N  --machine q35|pc  --backend anonymous|file|memfd|hugetlb|hugetlbfs|hugetlbfs-private  --cpu MODEL  --levels5
      --numa N  --tasks N  --busy N  --spin  --append 'KERNEL OPTIONS'  --no-qmp  --reboot  --stdin (end with standard input)
  cli.mjs truth DIRECTORY      ask a running guest for its table, print it as JSON lines
  cli.mjs freeze DIRECTORY     the same, and leave the guest frozen (halt: with each CPU in what it was doing)
  cli.mjs release DIRECTORY    end a freeze
  cli.mjs command DIRECTORY 'LINE'   tasks N, churn on|off, spin on|off, hide PID, unhide, panic, reboot
  cli.mjs shell DIRECTORY 'LINE'     run a line in the guest's shell
`;

/** bigints as 0x…, bytes as text that shows every byte. @param {string} _ @param {unknown} value */
const plain = (_, value) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value);

/** @param {import('./truth.mjs').Truth} truth */
function print({ generation, mode, facts, offsets, cpus, tasks }) {
  const line = (/** @type {object} */ object) =>
    process.stdout.write(`${JSON.stringify(object, plain)}\n`);
  line({ generation, mode, ...facts, offsets: Object.fromEntries(offsets) });
  for (const cpu of cpus) line(cpu);
  for (const { comm, commBytes, ...task } of tasks)
    line({ ...task, comm: comm.toString('latin1'), commBytes: commBytes.toString('hex') });
}

/** @param {string[]} args */
async function boot(args) {
  const { values } = parseArgs({
    args,
    options: {
      suite: { type: 'string' },
      build: { type: 'string' },
      flavour: { type: 'string' },
      memory: { type: 'string' },
      cpus: { type: 'string' },
      machine: { type: 'string' },
      backend: { type: 'string' },
      cpu: { type: 'string' },
      levels5: { type: 'boolean' },
      numa: { type: 'string' },
      tasks: { type: 'string' },
      busy: { type: 'string' },
      spin: { type: 'boolean' },
      append: { type: 'string' },
      'no-qmp': { type: 'boolean' },
      reboot: { type: 'boolean' },
      stdin: { type: 'boolean' },
    },
  });
  const number = (/** @type {string | undefined} */ text) =>
    text === undefined ? undefined : Number(text);
  const guest = await bootGuest(
    /** @type {import('./guest.mjs').GuestOptions} */ ({
      ...values,
      memory: number(values.memory),
      cpus: number(values.cpus),
      numa: number(values.numa),
      tasks: number(values.tasks),
      busy: number(values.busy),
      qmp: !values['no-qmp'],
    }),
  );
  const end = (/** @type {number} */ code) => void guest.close().then(() => process.exit(code));
  process.once('SIGINT', () => end(0));
  process.once('SIGTERM', () => end(0));
  if (values.stdin) process.stdin.on('end', () => end(0)).resume();
  const watch = setInterval(() => {
    if (!guest.running) {
      clearInterval(watch);
      console.error('lab: the guest ended');
      end(1);
    }
  }, 200);
  console.log(JSON.stringify(guest));
}

const [verb, directory, line = ''] = process.argv.slice(2);
if (verb === 'boot') await boot(process.argv.slice(3));
else if (!directory) {
  process.stderr.write(USAGE);
  process.exitCode = 2;
} else {
  const guest = await openGuest(directory);
  if (verb === 'truth') print(await guest.truth());
  else if (verb === 'freeze' || verb === 'halt')
    print(await guest.truth({ freeze: verb === 'halt' ? 'halt' : true }));
  else if (verb === 'release') await guest.thaw();
  else if (verb === 'command') await guest.command(line);
  else if (verb === 'shell') process.stdout.write(await guest.shell(line));
  else {
    process.stderr.write(USAGE);
    process.exitCode = 2;
  }
}
