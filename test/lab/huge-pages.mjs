// @ts-check
/** Huge pages for guests' RAM, taken from the host for as long as they are needed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';

/** Memory that is left to the host, MiB. */
const RESERVE = 2048;
/** MiB. */
const PAGE = 2;
/**
 * Adds pages to the pool ($1) and mounts hugetlbfs ($2), says `taken` or why not, and undoes both
 * when its standard input ends: however the process ends that holds it.
 */
const HOLDER = `
pool=/proc/sys/vm/nr_hugepages
give_back() { echo $(($(cat $pool) - added)) > $pool; }
before=$(cat $pool) && echo $((before + $1)) > $pool || { echo "the kernel's pool of huge pages cannot be changed"; exit; }
added=$(($(cat $pool) - before))
[ $added -eq $1 ] || { give_back; echo "the host has memory in one piece for $added of $1 huge pages"; exit; }
mount -t hugetlbfs -o pagesize=${PAGE}M none "$2" || { give_back; echo 'hugetlbfs cannot be mounted'; exit; }
echo taken
read -r _
umount -l "$2"
give_back
rmdir "$2"
`;

/**
 * Sets huge pages aside and mounts hugetlbfs, for the backends `hugetlb`, `hugetlbfs` and
 * `hugetlbfs-private`.
 *
 * @param {number} memory MiB
 * @returns {Promise<(() => Promise<void>) | string>} what gives them back, or why there are none
 */
export async function takeHugePages(memory) {
  if (process.getuid?.() !== 0) return 'only root can set huge pages aside';
  const spare = Math.floor(freemem() / 2 ** 20) - RESERVE;
  if (spare < memory)
    return `needs ${memory} MiB in huge pages, the host has ${spare} MiB to spare`;
  const folder = await mkdtemp(join(tmpdir(), 'node-libvmi-huge-'));
  const pages = String(Math.ceil(memory / PAGE));
  // A session of its own: Ctrl-C is not for it.
  const holder = spawn('sh', ['-c', HOLDER, 'holder', pages, folder], {
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true,
  });
  const ended = once(holder, 'exit');
  const [said] = await Promise.race([
    once(holder.stdout, 'data'),
    ended.then(() => ['no shell to do it with']),
  ]);
  const answer = String(said).trim();
  if (answer !== 'taken') {
    await ended;
    await rm(folder, { recursive: true, force: true });
    return answer;
  }
  return async () => {
    holder.stdin.end();
    await ended;
  };
}

/**
 * Where hugetlbfs with pages of 2 MiB is mounted.
 * @returns {Promise<string>}
 * @throws {Error} nowhere
 */
export async function hugeMount() {
  const mounts = (await readFile('/proc/self/mounts', 'utf8'))
    .split('\n')
    .map((line) => line.split(' '));
  const mount = mounts.findLast(
    ([, , type, options]) => type === 'hugetlbfs' && options?.includes(`pagesize=${PAGE}M`),
  );
  if (mount?.[1] === undefined)
    throw new Error(
      `hugetlbfs is mounted nowhere: mount -t hugetlbfs -o pagesize=${PAGE}M none FOLDER`,
    );
  return mount[1];
}

/** @param {number} memory MiB @throws {Error} the host has too few that are free */
export async function needHugePages(memory) {
  const free = Number(
    /HugePages_Free:\s+(\d+)/.exec(await readFile('/proc/meminfo', 'utf8'))?.[1] ?? 0,
  );
  if (free * PAGE < memory)
    throw new Error(
      `too few huge pages (${free} free): sysctl vm.nr_hugepages=${Math.ceil(memory / PAGE)}`,
    );
}
