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
