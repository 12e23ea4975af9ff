import { list } from '../objects/list.js';
import type { Pointer } from '../objects/pointer.js';
import { rbtree } from '../objects/rbtree.js';
import type { StructObject } from '../objects/struct-object.js';
import { dentryText, mountedPath } from './paths.js';

/** A mount, as a line of `/proc/PID/mountinfo` tells it. */
export interface Mount {
  readonly id: number;
  readonly parentId: number;
  /** What of the file system is mounted. */
  readonly root: string;
  /** Where it is mounted. */
  readonly path: string;
  /** Kind of file system: `tmpfs`. */
  readonly type: string;
  /** Device, or whatever was named as one. */
  readonly device: string;
  /** `struct mount` */
  readonly object: StructObject;
}

/** Most mounts of a namespace: sysctl fs.mount-max is 100,000. */
const MAX_MOUNTS = 1 << 20;
/** MNT_CURSOR: a reader's place in the list, no mount. include/linux/mount.h, 5.8 to 6.7. */
const CURSOR = 0x1000_0000;

/**
 * The mounts of a task's mount namespace: `/proc/PID/mountinfo`. Empty for a task that has exited.
 *
 * Source: fs/proc_namespace.c, show_mountinfo. `struct rb_root mnt_namespace.mounts` since commit
 * 2eea9ce4310d (6.8), `struct list_head mnt_namespace.list` before.
 */
export function* mounts(task: StructObject): Generator<Mount> {
  const proxy = task.nsproxy as StructObject | null;
  if (proxy === null) return;
  const namespace = proxy.$follow('mnt_ns') as StructObject;
  const all = namespace.$has('list')
    ? list(namespace.list, 'struct mount', 'mnt_list', MAX_MOUNTS)
    : rbtree(namespace.mounts, 'struct mount', 'mnt_node', MAX_MOUNTS);
  for (const object of all) {
    const { mnt } = object;
    if ((Number(mnt.mnt_flags) & CURSOR) !== 0) continue;
    yield {
      id: object.mnt_id,
      parentId: object.$follow('mnt_parent').mnt_id,
      root: dentryText(mnt.$follow('mnt_root')),
      path: mountedPath(object, mnt.$follow('mnt_root')),
      type: typeOf(mnt.$follow('mnt_sb')),
      device: (object.mnt_devname as Pointer | null)?.string(256) ?? 'none',
      object,
    };
  }
}

/** fs/proc_namespace.c, show_type: FUSE adds what it is served by. */
function typeOf(superblock: StructObject): string {
  const name = (superblock.$follow('s_type.name') as Pointer).string(64);
  const subtype = superblock.s_subtype as Pointer | null | undefined;
  return subtype == null ? name : `${name}.${subtype.string(64)}`;
}
