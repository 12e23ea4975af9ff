// @ts-check
/**
 * Fails every single read of every question, one at a time: `npm run test:faults [-- --suite
 * bookworm] [--only tasks]`. The read is failed alone or with all after it, whole or short. What
 * comes back must be the whole right answer, an error with a code, or a row that says what it
 * lacks.
 */
import { parseArgs } from 'node:util';
import { FOR_EVER, failingLibrary } from '../fault/failing.mjs';
import { askWithFaults, questions } from '../fault/questions.mjs';
import { guestImage } from '../hostile/image.mjs';
import { codeOf } from '../hostile/operations.mjs';

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
  if ('attach'.includes(values.only)) await checkAttach();
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

/**
 * What is known of a kernel, as one line.
 * @param {import('../../lib/kernel/kernel.ts').Kernel} kernel
 */
function factsOf(kernel) {
  const { release, banner, buildId, levels, root, pageOffset, pti, physBase, image } = kernel;
  const { virtual, physical, length } = image;
  const symbols = ['init_task', 'cpu_tlbstate', '_end'].map((name) => kernel.symbols.find(name));
  const pgd = kernel.types.offset('mm_struct', 'pgd');
  const facts = [release, banner, buildId, levels, root, pageOffset, pti, physBase, virtual];
  return [...facts, physical, length, ...symbols, pgd, kernel.onlineCpus()].join(' ');
}

/**
 * Finds the kernel with each read failed; every {@link STEP}th of those that only go on with a long
 * search.
 */
async function checkAttach() {
  const FIRST = 400;
  const STEP = 7;
  const ask = async () => {
    const kernel = await Kernel.load(memory, { cache: false });
    // What is asked later is asked of memory that can be read.
    order();
    return factsOf(kernel);
  };
  order();
  await Kernel.load(memory, { cache: false });
  const reads = order();
  const expected = await ask();
  let runs = 0;
  let errors = 0;
  /** @type {string[]} */ const wrong = [];
  for (let first = 1; first <= reads; first += first < FIRST ? 1 : STEP) {
    for (const count of [1, FOR_EVER]) {
      for (const short of [false, true]) {
        order(first, count, short);
        runs++;
        try {
          const facts = await ask();
          if (facts !== expected)
            wrong.push(`read ${first} (${count === 1 ? 'alone' : 'and all after'}): ${facts}`);
        } catch (error) {
          if (codeOf(error) === undefined) throw error;
          errors++;
        }
      }
    }
  }
  order();
  total.questions++;
  total.runs += runs;
  total.errors += errors;
  total.wrong += wrong.length;
  console.log(`attach: ${reads} reads, ${runs} runs, ${errors} errors, ${wrong.length} wrong`);
  for (const line of wrong.slice(0, Number(values.show))) console.log(`  ${line}, not ${expected}`);
}
