/** A guest that is stopped. Resumes exactly once, whichever way it is disposed of. */
export class Pause implements AsyncDisposable {
  #resume: (() => Promise<void>) | undefined;

  /** @internal */
  constructor(resume: () => Promise<void>) {
    this.#resume = resume;
  }

  /** Lets the guest run again. Idempotent. */
  async resume(): Promise<void> {
    const resume = this.#resume;
    this.#resume = undefined;
    await resume?.();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.resume();
  }
}

/** What can be stopped and made to run again. */
interface Stoppable {
  pause(): Promise<void>;
  resume(): Promise<void>;
}

/** The pauses of one guest: it stops with the first, and goes on when the last is over. */
export class Pauses {
  readonly #guest: Stoppable;
  readonly #open = new Set<Pause>();

  constructor(guest: Stoppable) {
    this.#guest = guest;
  }

  /** @throws {VmiError} `VMI_UNSUPPORTED`: the source cannot */
  async begin(): Promise<Pause> {
    await this.#guest.pause();
    const pause = new Pause(async () => {
      this.#open.delete(pause);
      if (this.#open.size === 0) await this.#guest.resume();
    });
    this.#open.add(pause);
    return pause;
  }

  /** Ends every pause that is not over yet. */
  async endAll(): Promise<void> {
    for (const pause of this.#open) await pause.resume();
  }
}
