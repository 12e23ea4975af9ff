// Serves the task table of a guest over HTTP, to any number of clients: one worker reads the guest,
// and takes it up again after a reset.
//
//   node examples/task-table.mjs qemu:4242 [PORT]
//
//   GET /tasks    one JSON array: every process, with the CR3 it runs on
//   GET /stream   a line of JSON each second, until the client goes
import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const MILLISECONDS = 1000;
/** Bytes that may wait for a client that does not read; then it is let go. */
const MAX_WAITING = 16 << 20;

/**
 * In the worker: a listing each second, as text, so that it crosses between threads once for all
 * clients.
 */
async function look(target) {
  const { attach } = await import('node-libvmi');
  let guest;
  for (;;) {
    try {
      guest ??= await attach(target);
      parentPort.postMessage({ tasks: JSON.stringify(guest.tasks()) });
    } catch (error) {
      parentPort.postMessage({ error: error.message });
      if (error.code === 'VMI_CHANGED') {
        // It was reset: the same guest, another kernel.
        await guest.reattach().catch((why) => parentPort.postMessage({ error: why.message }));
      } else if (guest !== undefined) {
        await guest.close();
        guest = undefined;
      }
    }
    await setTimeout(MILLISECONDS);
  }
}

/** In the main thread: the last listing for whoever asks, and each one for those who stay. */
function serve(target, port) {
  let last = { error: 'not attached yet' };
  const clients = new Set();
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: target });
  worker.on('message', (message) => {
    last = message;
    const line = `${message.tasks ?? JSON.stringify({ error: message.error })}\n`;
    for (const client of clients) {
      if (client.writableLength > MAX_WAITING) client.destroy();
      else client.write(line);
    }
  });
  worker.on('error', (error) => {
    console.error(error);
    process.exit(1);
  });
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    if (request.url === '/stream') {
      clients.add(response);
      response.on('close', () => clients.delete(response));
      response.flushHeaders();
    } else if (request.url === '/tasks') {
      response.statusCode = last.tasks === undefined ? 503 : 200;
      response.end(last.tasks ?? JSON.stringify({ error: last.error }));
    } else {
      response.statusCode = 404;
      response.end('{"error":"GET /tasks or /stream"}');
    }
  });
  // This host only: the table is the guest's memory, and nobody is asked who he is.
  server.listen(port, '127.0.0.1', () =>
    console.log(`http://127.0.0.1:${server.address().port}/tasks`),
  );
}

if (isMainThread) {
  const [target, port = '0'] = process.argv.slice(2);
  if (target === undefined) {
    console.error('usage: node examples/task-table.mjs TARGET [PORT]');
    process.exit(2);
  }
  serve(target, Number(port));
} else {
  await look(workerData);
}
