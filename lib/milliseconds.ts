/**
 * Milliseconds of a clock that never goes back, to measure with. `performance.now()` is the same,
 * but Node loads a dozen modules before it answers the first time.
 */
export function milliseconds(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}
