import { describe, expect, it } from 'vitest';
import { ClockTie } from '../../../lib/monitor/clock-tie.js';

/** A guest that booted so long after its host, and whose clock runs so fast. */
const BOOT = 5_000_000_000_000n;
const host = (guest: bigint, speed = 1) => BOOT + BigInt(Math.round(Number(guest) / speed));

describe('ClockTie', () => {
  it('has no answer before the first tie', () => {
    const clock = new ClockTie();
    expect(clock.toHost(1n)).toBeUndefined();
    expect(clock.toGuest(1n)).toBeUndefined();
    clock.add(10n, 30n, 20n);
    expect(clock.count).toBe(0);
  });

  it('keeps the narrowest interval of each 100 ms', () => {
    const clock = new ClockTie();
    const guest = 1_000_000_000n;
    for (const width of [4_000n, 200n, 90_000n])
      clock.add(guest, host(guest) - width / 2n, host(guest) + width / 2n);
    expect(clock.count).toBe(1);
    expect(clock.toHost(guest)).toEqual({ time: host(guest), error: 100 });
    expect(clock.toHost(guest + 500n)!.time).toBe(host(guest) + 500n);
  });

  it('follows a clock that runs at another speed', () => {
    const clock = new ClockTie();
    const speed = 1.002;
    for (let guest = 0n; guest < 20_000_000_000n; guest += 7_000_000n)
      clock.add(guest, host(guest, speed) - 500n, host(guest, speed) + 500n);
    for (const guest of [1_234_567_890n, 19_000_000_001n, 25_000_000_000n]) {
      const found = clock.toHost(guest)!;
      expect(Math.abs(Number(found.time - host(guest, speed)))).toBeLessThan(1_000);
      const back = clock.toGuest(found.time)!;
      expect(Math.abs(Number(back.time - guest))).toBeLessThan(2);
    }
  });

  it('forgets what was before the guest was stopped', () => {
    const clock = new ClockTie();
    clock.add(1_000n, BOOT, BOOT + 1_000n);
    clock.add(2_000_000n, BOOT + 60_000_000_000n, BOOT + 60_000_001_000n);
    expect(clock.count).toBe(1);
    expect(clock.toHost(2_000_000n)!.time).toBe(BOOT + 60_000_000_500n);
    // A slice that had begun long before it was seen says nothing.
    clock.add(2_000_000n, BOOT + 70_000_000_000n, BOOT + 70_600_000_000n);
    expect(clock.count).toBe(1);
  });

  it('keeps a minute of ties', () => {
    const clock = new ClockTie();
    for (let guest = 0n; guest < 200_000_000_000n; guest += 100_000_000n)
      clock.add(guest, host(guest), host(guest) + 10n);
    expect(clock.count).toBe(600);
  });
});
