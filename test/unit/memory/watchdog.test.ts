import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Watchdog } from '../../../lib/memory/watchdog.js';

/** What frees a stopped guest, each look of it ended by hand. */
function looks() {
  const open: (() => void)[] = [];
  const freeStopped = vi.fn(() => new Promise<void>((resolve) => open.push(resolve)));
  const end = async () => {
    open.shift()!();
    await vi.advanceTimersByTimeAsync(0);
  };
  return { freeStopped, end };
}

describe('a watchdog', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('looks when no word comes for a while, and goes on until one comes', async () => {
    const { freeStopped, end } = looks();
    const watchdog = new Watchdog(freeStopped);
    watchdog.heard(true);
    await vi.advanceTimersByTimeAsync(2_900);
    watchdog.heard(true);
    await vi.advanceTimersByTimeAsync(2_900);
    expect(freeStopped).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(200);
    await end();
    await vi.advanceTimersByTimeAsync(600);
    expect(freeStopped).toHaveBeenCalledTimes(2);
    await end();
    watchdog.heard(false);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(freeStopped).toHaveBeenCalledTimes(2);
  });

  it('looks on after a look that failed', async () => {
    const watchdog = new Watchdog(vi.fn().mockRejectedValue(new Error('held by another')));
    watchdog.heard(true);
    await vi.advanceTimersByTimeAsync(3_100);
    expect(vi.getTimerCount()).toBe(1);
    watchdog.heard(false);
  });

  it.each([1, 2, 3])('ends when %i words came while it looked', async (words) => {
    const { freeStopped, end } = looks();
    const watchdog = new Watchdog(freeStopped);
    watchdog.heard(true);
    await vi.advanceTimersByTimeAsync(3_100);
    for (let i = 0; i < words; i++) watchdog.heard(true);
    await end();
    expect(vi.getTimerCount()).toBe(1);
    await watchdog.stop();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('waits at its end for a look that has begun, and begins no other', async () => {
    const { freeStopped, end } = looks();
    const watchdog = new Watchdog(freeStopped);
    watchdog.heard(true);
    await vi.advanceTimersByTimeAsync(3_100);
    const stopped = vi.fn();
    const stopping = watchdog.stop().then(stopped);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(stopped).not.toHaveBeenCalled();
    await end();
    await stopping;
    expect(vi.getTimerCount()).toBe(0);
    expect(freeStopped).toHaveBeenCalledTimes(1);
  });
});
