import { VmiError } from '../errors.js';
import { EXIT, exitCodeOf } from './exit-code.js';
import type { Output } from './output.js';

/**
 * Answers several questions of one call: a question without an answer is told on standard error and
 * does not keep the others from theirs; a guest that ended does.
 * @returns the exit code, the worst of all
 */
export function answerEach<Question>(
  out: Output,
  questions: readonly Question[],
  answer: (question: Question) => void,
): number {
  let code: number = EXIT.done;
  for (const question of questions) {
    try {
      answer(question);
    } catch (error) {
      code = Math.max(code, noAnswer(error, out));
    }
  }
  return code;
}

/** The same of questions whose answers are waited for, one after the other. */
export async function answerEachLater<Question>(
  out: Output,
  questions: readonly Question[],
  answer: (question: Question) => Promise<void>,
): Promise<number> {
  let code: number = EXIT.done;
  for (const question of questions) {
    try {
      await answer(question);
    } catch (error) {
      code = Math.max(code, noAnswer(error, out));
    }
  }
  return code;
}

/** @throws what ends all questions */
function noAnswer(error: unknown, out: Output): number {
  if (!(error instanceof VmiError)) throw error;
  const its = exitCodeOf(error.code);
  if (its !== EXIT.no && its !== EXIT.memory) throw error;
  out.error(error.message);
  return its;
}
