import { wrap } from '../../address.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import { type MappedImage, scanImage } from '../image.js';
import { GuestWords, isPointer } from '../layout/guest-words.js';
import { nearly } from '../layout/inference.js';
import { COMM_LENGTH } from '../x86-64.js';

/** The first task's name: that of a kernel without SMP has no number. init/init_task.c. */
const IDLE = Buffer.from('swapper', 'latin1');
const IDLE_NAME = /^swapper(\/0)?\0+$/;
const KTHREADD = /^kthreadd\0/;
const MAX_HITS = 64;
/** Bytes of a `task_struct` before and behind its list of tasks that are searched. */
const REACH = 8192;
const LENGTH = 2 * REACH;
const PAGE = 4096n;
/** Tasks that are looked at. */
const TASKS = 32;
/** Fewest tasks of a kernel that has booted: PID 1, kthreadd and its first children. */
const FEWEST = 5;
/** Every `task_struct` is aligned to a cache line. init/init_task.c, kernel/fork.c. */
const ALIGN = 64n;

/**
 * Finds `init_task` in an image by its contents: a name that begins with `swapper`, and near it a
 * list that closes, of which each element has a name at the same distance, one of the first
 * kthreadd's. The start of the structure is where each of its tasks' `group_leader` points to, and
 * `real_parent` of the first ones.
 * @returns its address; `undefined` where none, or more than one, comes into question
 */
export async function findInitTask(
  space: VirtualMemory,
  image: MappedImage,
  signal: AbortSignal | undefined,
): Promise<bigint | undefined> {
  const words = new GuestWords(space);
  const found = new Set<bigint>();
  for await (const hit of scanImage(space, image, IDLE, MAX_HITS, signal)) {
    const name = words.bytes(hit, COMM_LENGTH)?.toString('latin1');
    if (name === undefined || !IDLE_NAME.test(name)) continue;
    for (const links of namedLists(words, hit)) {
      const start = startOfTasks(words, links);
      if (start !== undefined) found.add(start);
    }
  }
  const [task, another] = found;
  return another === undefined ? task : undefined;
}

/** Lists through a place near a name, of which every element has a name at the same distance. */
function* namedLists(words: GuestWords, comm: bigint): Generator<bigint[]> {
  const low = (comm - BigInt(REACH)) & ~7n;
  const bytes = aroundLink(words, low + BigInt(REACH));
  for (let at = 0; at + 16 <= LENGTH; at += 8) {
    const head = low + BigInt(at);
    const [next, prev] = [bytes.readBigUInt64LE(at), bytes.readBigUInt64LE(at + 8)];
    if (!isPointer(next) || !isPointer(prev) || next === head) continue;
    if (words.u64(next + 8n) !== head || words.u64(prev) !== head) continue;
    const nameOf = (link: bigint) =>
      words.bytes(wrap(link + comm - head), COMM_LENGTH)?.toString('latin1') ?? '';
    const links = follow(words, head);
    const first = links.slice(1, 4).map(nameOf);
    if (links.length < FEWEST || !first.some((name) => KTHREADD.test(name))) continue;
    // Kthreadd second, so that those who ask for it find it there.
    links.sort((a, b) => rank(nameOf(a), a === head) - rank(nameOf(b), b === head));
    yield links;
  }
}

function rank(name: string, isHead: boolean): number {
  if (isHead) return 0;
  return KTHREADD.test(name) ? 1 : 2;
}

/** The first elements of a list, its head first; as far as their neighbours point back. */
function follow(words: GuestWords, head: bigint): bigint[] {
  const links = [head];
  let at = head;
  while (links.length < TASKS) {
    const next = words.u64(at);
    if (!isPointer(next) || next === head || words.u64(next + 8n) !== at) break;
    links.push(next);
    at = next;
  }
  return links;
}

/**
 * Where a task starts, by the links of some of them: init_task's, kthreadd's, and others. The
 * distance from a task's link to its start is the same for all. `group_leader` of each of these
 * leaders is its own start; `real_parent` of init_task and kthreadd is init_task's, and that of
 * kernel threads kthreadd's.
 */
function startOfTasks(words: GuestWords, links: readonly bigint[]): bigint | undefined {
  const [first, second] = [links[0]!, links[1]!];
  const tasks = links.map((link) => ({ link, bytes: aroundLink(words, link) }));
  const at = (index: number, offset: number) => tasks[index]!.bytes.readBigUInt64LE(offset);
  const distances = new Set<bigint>();
  for (let offset = 0; offset + 8 <= LENGTH; offset += 8) {
    const distance = at(0, offset) - first;
    if (distance > 0n || distance < -BigInt(REACH) || (first + distance) % ALIGN !== 0n) continue;
    // An empty list points to itself.
    const own = BigInt(offset - REACH);
    if (distance === own || distance === own - 8n) continue;
    const isOwn = ({ link, bytes }: (typeof tasks)[number]) =>
      bytes.readBigUInt64LE(offset) === link + distance;
    if (nearly(tasks, isOwn)) distances.add(distance);
  }
  const starts = [...distances].filter((distance) => {
    for (let offset = 0; offset + 8 <= LENGTH; offset += 8) {
      const idle = first + distance;
      if (at(0, offset) !== idle || at(1, offset) !== idle) continue;
      if (tasks.some((_, i) => i > 1 && at(i, offset) === second + distance)) return true;
    }
    return false;
  });
  return starts.length === 1 ? first + starts[0]! : undefined;
}

/** Bytes around a link, as many before as behind it; zeroes where a page is absent. */
function aroundLink(words: GuestWords, link: bigint): Buffer {
  const low = link - BigInt(REACH);
  const bytes = Buffer.alloc(LENGTH);
  for (let done = 0n; done < BigInt(LENGTH); ) {
    const rest = PAGE - ((low + done) % PAGE);
    const length = rest < BigInt(LENGTH) - done ? rest : BigInt(LENGTH) - done;
    words.atMost(low + done, Number(length)).copy(bytes, Number(done));
    done += length;
  }
  return bytes;
}
