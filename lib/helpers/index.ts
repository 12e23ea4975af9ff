/**
 * What a running kernel can be asked beyond its tasks: each helper a few lines that can be read,
 * copied and changed, with the C types it goes through. Collections, by which they walk, are here
 * as well. What a file of helpers exports is public.
 */
export { bitmap, cpumask } from '../objects/bitmap.js';
export { hlist, hlistNulls, llist } from '../objects/hlist.js';
export { list, listNodes } from '../objects/list.js';
export { type MapleEntry, mapleTree } from '../objects/maple-tree.js';
export { rbtree } from '../objects/rbtree.js';
export { idr, type XarrayEntry, xarray } from '../objects/xarray.js';
export * from './boot.js';
export * from './files.js';
export * from './interrupts.js';
export * from './mm.js';
export * from './modules.js';
export { type Mount, mounts } from './mounts.js';
export * from './namespaces.js';
export * from './net.js';
export { dentryText, pathText } from './paths.js';
export * from './printk.js';
export * from './slab.js';
export * from './tasks.js';
export * from './user-mode.js';
export * from './what-is.js';
