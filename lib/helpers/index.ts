/**
 * What a running kernel can be asked beyond its tasks: each helper a few lines that can be read,
 * copied and changed, with the C types it goes through. Collections, by which they walk, are here
 * as well.
 */
export { bitmap, cpumask } from '../objects/bitmap.js';
export { hlist, hlistNulls, llist } from '../objects/hlist.js';
export { list, listNodes } from '../objects/list.js';
export { type MapleEntry, mapleTree } from '../objects/maple-tree.js';
export { rbtree } from '../objects/rbtree.js';
export { idr, type XarrayEntry, xarray } from '../objects/xarray.js';
export { commandLine, loadAverage, type RunQueue, runQueues } from './boot.js';
export { files, type OpenFile } from './files.js';
export { type PageState, pageState, type Rss, rss, type Vma, vmas } from './mm.js';
export { type Module, modules } from './modules.js';
export { type Mount, mounts } from './mounts.js';
export { cgroup, type Namespaces, namespaces } from './namespaces.js';
export { type Socket, sockets } from './net.js';
export { dentryText, pathText } from './paths.js';
export { dmesg, type LogRecord } from './printk.js';
export {
  children,
  cmdline,
  cwd,
  environ,
  exe,
  parents,
  processes,
  root,
  threads,
} from './tasks.js';
