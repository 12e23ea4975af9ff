// @ts-check
/**
 * Watches a thread's switches with QEMU's debug stub and ends in one of many ways: `node
 * test/lifecycle/trap.mjs TARGET PID ENDING`. Prints `watching` once switches have come; endings
 * that come from outside wait for them.
 */
import { attach, VmiError } from 'node-libvmi';

const [target = '', pid = '', ending = ''] = process.argv.slice(2);
const guest = await attach(target);
const abort = new AbortController();
const stream = guest.trapSwitches({ pids: [Number(pid)], signal: abort.signal });

/** Takes a few switches, so that the guest was stopped and went on. */
async function some() {
  for (let taken = 0; taken < 3; taken++) await stream.next();
  console.log('watching');
}

/** @type {Record<string, () => Promise<unknown>>} */
const endings = {
  async break() {
    for await (const _ of stream) break;
    await guest.close();
  },
  async throw() {
    try {
      for await (const _ of stream) throw new Error('the body of the loop failed');
    } catch {
      await guest.close();
    }
  },
  async return() {
    await some();
    await stream.return();
    await guest.close();
  },
  async close() {
    await some();
    await guest.close();
  },
  async abort() {
    await some();
    const waiting = (async () => {
      for await (const _ of stream);
    })();
    setTimeout(() => abort.abort(), 20);
    await waiting.catch((error) => {
      if (!(error instanceof VmiError) || error.code !== 'VMI_ABORTED') throw error;
    });
    await guest.close();
  },
  async exit() {
    await some();
    process.exit(0);
  },
  async uncaught() {
    await some();
    setTimeout(() => {
      throw new Error('nobody catches this');
    }, 10);
    for await (const _ of stream);
  },
  /** Until a signal ends the process, while switches come all the time. */
  async forever() {
    await some();
    for await (const _ of stream);
  },
  /** The same, while nobody asks for more. */
  async idle() {
    await some();
    setInterval(() => {}, 1_000);
  },
  /** The same, while the guest stands still where its thread came to run. */
  async held() {
    await guest.pauseWhen({ pid: Number(pid) });
    console.log('watching');
    setInterval(() => {}, 1_000);
  },
  /** Until the process goes on that was stopped; the guest has been let go then. */
  async stopped() {
    await some();
    const error = await (async () => {
      for await (const _ of stream);
    })().catch((error) => error);
    console.log(error.code);
    await guest.close();
  },
  /** Code of the reader keeps the event loop from turning, until the guest has been let go. */
  async busy() {
    await some();
    for (const until = Date.now() + 12_000; Date.now() < until; );
    process.exit(0);
  },
  /** Until the stub is taken away by somebody else. */
  async lost() {
    await some();
    try {
      for await (const _ of stream);
    } catch (error) {
      if (!(error instanceof VmiError)) throw error;
      console.log(error.code);
    }
    await guest.close();
  },
};
await endings[ending]?.();
