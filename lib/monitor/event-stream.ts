/** Events one after the other. Leaving a `for await` ends it. */
export abstract class EventStream<T> implements AsyncIterableIterator<T>, AsyncDisposable {
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * The next event; `done` once the stream has ended. Several that wait are served in turn.
   * @throws {VmiError} `VMI_ABORTED`; `VMI_CLOSED`: the guest has ended. The stream has ended then
   */
  next(): Promise<IteratorResult<T, undefined>> {
    const turn = this.#turn.then(() => this.take());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Ends the stream. Idempotent. */
  async return(): Promise<IteratorResult<T, undefined>> {
    await this.end();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  /** @internal The next event, once those before it were taken. */
  protected abstract take(): Promise<IteratorResult<T, undefined>>;

  /** @internal Lets go of everything. Called any number of times. */
  protected abstract end(): void | Promise<void>;
}
