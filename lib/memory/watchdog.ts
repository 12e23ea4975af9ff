/** After how long without a word a user of a debug stub does not attend to it, milliseconds. */
const SILENCE = 3_000;
/** How often it is looked whether such a guest is stopped, milliseconds. */
const LOOK = 500;

/** Frees a guest from a debug stub that nobody attends to. */
export class Watchdog {
  readonly #freeStopped: () => Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  /** @param freeStopped lets the guest go where the stub has stopped it; may fail */
  constructor(freeStopped: () => Promise<void>) {
    this.#freeStopped = freeStopped;
  }

  /** @param isBeat whether another word is to come within 3 s */
  heard(isBeat: boolean): void {
    this.#wait(isBeat ? SILENCE : undefined);
  }

  /** Ends, once a look that has begun is over. */
  async stop(): Promise<void> {
    this.heard(false);
    await this.#looking;
  }

  #wait(milliseconds: number | undefined): void {
    clearTimeout(this.#timer);
    this.#timer =
      milliseconds === undefined ? undefined : setTimeout(() => this.#look(), milliseconds);
  }

  /** Looks until a word comes: the guest may run now and reach a stop later. */
  #look(): void {
    const timer = this.#timer;
    this.#looking = this.#looking
      .then(this.#freeStopped)
      .catch(() => {})
      .then(() => {
        // A word that came meanwhile says when to look next.
        if (this.#timer === timer) this.#wait(LOOK);
      });
  }
}
