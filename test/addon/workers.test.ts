import { once } from 'node:events';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { Ram } from './support/ram.js';

const binary = createRequire(import.meta.url).resolve('../../build/Release/vmi_addon.node');

/** Runs in a worker: opens the file by its path, does `mode`, and tells about it. */
const program = `
  const { parentPort, workerData } = require('node:worker_threads');
  const fs = require('node:fs');
  const addon = require(workerData.binary);
  const fd = fs.openSync(workerData.path, 'r');
  const length = BigInt(fs.fstatSync(fd).size);
  const memory = addon.openMemory({ segments: [{ kind: 'file', physical: 0n, length, fd, offset: 0n }] });
  const scan = () => memory.scan({ pattern: Buffer.from('absent'), stride: 1, offsets: [0], max: 1, cancel: new Uint8Array(1) });
  if (workerData.mode === 'read') {
    let sum = 0n;
    for (let i = 0; i < 20000; i++) sum += memory.readU64(BigInt(i % 64) * 8n);
    parentPort.postMessage(sum);
    if (workerData.close) memory.close();
  } else if (workerData.mode === 'loop') {
    parentPort.postMessage('started');
    for (;;) memory.readU64(8n);
  } else {
    for (let i = 0; i < 8; i++) scan().catch(() => {});
    parentPort.postMessage('started');
    if (workerData.mode === 'throw') throw new Error('mine');
  }
`;

function start(ram: Ram, mode: string, close = false): Worker {
  return new Worker(program, { eval: true, workerData: { binary, path: ram.path, mode, close } });
}

describe('the addon in worker threads', () => {
  it('is loaded by each for itself', async () => {
    using ram = new Ram(0x10000);
    for (let i = 0; i < 64; i++) ram.put64(i * 8, BigInt(i));
    const expected = Array.from({ length: 20_000 }, (_, i) => i % 64).reduce(
      (sum, i) => sum + i,
      0,
    );
    const workers = Array.from({ length: 4 }, (_, i) => start(ram, 'read', i % 2 === 0));
    const sums = await Promise.all(
      workers.map(async (worker) => (await once(worker, 'message'))[0] as bigint),
    );
    expect(sums).toEqual(Array(4).fill(BigInt(expected)));
    await Promise.all(workers.map((worker) => worker.terminate()));
    const memory = ram.open();
    expect(memory.readU64(8n)).toBe(1n);
    memory.close();
  });

  it.each(['loop', 'scan', 'throw'])('may be terminated in mid-%s', async (mode) => {
    using ram = new Ram(64 << 20);
    ram.put(0, Buffer.alloc(64 << 20, 1));
    for (let i = 0; i < 3; i++) {
      const worker = start(ram, mode);
      await new Promise((resolve) => worker.on('message', resolve).on('error', resolve));
      await worker.terminate();
    }
  });

  it('may be loaded twice in one thread', () => {
    using ram = new Ram(0x10000);
    ram.put64(8, 3n);
    const require = createRequire(import.meta.url);
    delete require.cache[binary];
    const again = require(binary) as ReturnType<typeof addon>;
    const memory = again.openMemory({ segments: [ram.segment()] });
    expect(memory.readU64(8n)).toBe(3n);
    expect(new (addon().AddressSpace)(memory, 0x1000n, 4)).toBeInstanceOf(addon().AddressSpace);
    memory.close();
  });
});
