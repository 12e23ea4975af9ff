import { CorruptError } from '../errors.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';

/**
 * Directories above each other, and mounts upon each other, that are followed. PATH_MAX is 4096.
 */
const MAX_STEPS = 4096;

/**
 * A path as the kernel prints it: `d_path()`, from the root of the mount tree.
 *
 * Source: fs/d_path.c, prepend_path; `struct path { struct vfsmount *mnt; struct dentry *dentry;
 * }`.
 * @param path `struct path`
 * @throws {CorruptError} directories without end
 * @throws {FaultError}
 */
export function pathText(path: StructObject): string {
  const dentry = path.dentry as StructObject | null;
  const mount = path.mnt as StructObject | null;
  if (dentry === null || mount === null) return '';
  return (
    ownName(dentry) ??
    mountedPath(mount.$containerOf('struct mount', 'mnt'), dentry) +
      (isUnlinked(dentry) ? ' (deleted)' : '')
  );
}

/**
 * A path within its own file system, mounts left out: `dentry_path()`.
 * @param dentry `struct dentry`
 */
export function dentryText(dentry: StructObject): string {
  const names: string[] = [];
  for (let at = dentry; up(at).$address !== at.$address; at = up(at)) {
    names.push(nameOf(at));
    if (names.length > MAX_STEPS) throw endless(dentry);
  }
  return `/${names.reverse().join('/')}`;
}

/** The last part of a path. @param dentry `struct dentry` */
export function nameOf(dentry: StructObject): string {
  return (dentry.d_name.name as Pointer | null)?.string(256) ?? '';
}

/** From a directory up to the root of all mounts. @param from `struct mount` */
export function mountedPath(from: StructObject, dentry: StructObject): string {
  const names: string[] = [];
  let mount = from;
  let at = dentry;
  for (let steps = 0; ; steps++) {
    if (steps > MAX_STEPS) throw endless(dentry);
    if (at.$address === mount.$follow('mnt.mnt_root').$address) {
      const parent = mount.$follow('mnt_parent') as StructObject;
      if (parent.$address === mount.$address) break;
      at = mount.$follow('mnt_mountpoint');
      mount = parent;
    } else if (up(at).$address === at.$address) {
      // Not reached from its mount's root: the kernel says so of a detached one, too.
      break;
    } else {
      names.push(nameOf(at));
      at = up(at);
    }
  }
  return `/${names.reverse().join('/')}`;
}

/** Names that a file system makes up for files that have no path: `d_op->d_dname`. */
function ownName(dentry: StructObject): string | undefined {
  const dname = dentry.d_op?.d_dname as Pointer | null | undefined;
  switch (dname?.symbol) {
    case 'pipefs_dname':
      return `pipe:[${dentry.$follow('d_inode').i_ino}]`;
    case 'sockfs_dname':
      return `socket:[${dentry.$follow('d_inode').i_ino}]`;
    case 'anon_inodefs_dname':
      return `anon_inode:${nameOf(dentry)}`;
    case 'simple_dname':
      // shmem and hugetlbfs: fs/d_path.c, simple_dname.
      return `/${nameOf(dentry)} (deleted)`;
    case 'ns_dname':
      return `${nameOf(dentry)}:[${dentry.$follow('d_inode').i_ino}]`;
    default:
      return undefined;
  }
}

/** d_unlinked: no longer in the hash table of names, and no root. include/linux/dcache.h. */
function isUnlinked(dentry: StructObject): boolean {
  return dentry.d_hash.pprev === null && up(dentry).$address !== dentry.$address;
}

/** The directory that a name is in; a root is its own. */
function up(dentry: StructObject): StructObject {
  return dentry.$follow('d_parent') as StructObject;
}

function endless(dentry: StructObject): CorruptError {
  return new CorruptError(`the directories above ${dentry.$path} never end`, dentry.$address);
}
