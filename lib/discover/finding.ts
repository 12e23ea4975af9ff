/** One thing that was looked at, and what to do about it. */
export interface Finding {
  readonly check: string;
  readonly status: 'ok' | 'warning' | 'problem';
  readonly detail: string;
  /** One command or sentence; absent where all is well. */
  readonly fix?: string;
}
