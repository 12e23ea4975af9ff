// @ts-check
/**
 * Fails every single read of every question, one at a time: `npm run test:faults [-- --suite bookworm] [--only tasks]`. The read is
 * failed alone or with all after it, whole or short. What comes back must be the whole right answer, an error with a code, or a row
 * that says what it lacks.
 */
import { parseArgs } from 'node:util';
import { failingLibrary } from '../fault/failing.mjs';
import { askWithFaults, questions } from '../fault/questions.mjs';
import { guestImage } from '../hostile/image.mjs';

const { values } = parseArgs({
  options: {
    suite: { type: 'string', default: 'bookworm' },
    /** part of the name of a question */ only: { type: 'string', default: '' },
    /** wrong answers that are printed of each question */ show: { type: 'string', default: '3' },
  },
});

/** @param {string} path of a module of lib/ @returns {Promise<any>} */
const built = (path) => import(new URL(`../../dist/${path}.js`, import.meta.url).href);
/** @type {typeof import('../../lib/guest/guest.ts')} */
const { Guest } = await built('guest/guest');
/** @type {typeof import('../../lib/kernel/kernel.ts')} */
const { Kernel } = await built('kernel/kernel');
/** @type {typeof import('../../lib/memory/libvmi/libvmi.ts')} */
const { openLibvmi } = await built('memory/libvmi/libvmi');
/** @type {typeof import('../../lib/libvmi/registers.ts')} */
const { REGISTERS } = await built('libvmi/registers');

const image = await guestImage(values.suite);
const { library, order, close } = failingLibrary(image, REGISTERS);
const target = /** @type {const} */ ({ driver: 'kvm', name: image.ram, library, direct: true });
const memory = await openLibvmi(target);
const guest = new Guest('libvmi:failing', memory, await Kernel.load(memory, { cache: false }));
const total = { questions: 0, runs: 0, errors: 0, wrong: 0 };
try {
  for (const question of questions(guest)) if (question.name.includes(values.only)) check(question);
} finally {
  await guest.close();
  close();
}
console.log(JSON.stringify({ suite: values.suite, release: image.release, ...total }));
if (total.wrong > 0) process.exitCode = 1;

/** @param {import('../fault/questions.mjs').Question} question */
function check(question) {
  const every = (/** @type {number} */ reads) => Array.from({ length: reads }, (_, i) => i + 1);
  const { reads, runs, errors, wrong } = askWithFaults(question, guest, order, every);
  total.questions++;
  total.runs += runs;
  total.errors += errors;
  total.wrong += wrong.length;
  if (wrong.length > 0 || !question.name.startsWith('pidToCr3'))
    console.log(
      `${question.name}: ${reads} reads, ${runs} runs, ${errors} errors, ${wrong.length} wrong`,
    );
  for (const line of wrong.slice(0, Number(values.show))) console.log(`  ${line}`);
}
