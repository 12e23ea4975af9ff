import type { NativeLoader } from '../../../types/addon.js';

interface Loadable {
  readU64(address: bigint): bigint;
}

/** Whatever has a handle, for as long as it lives. */
const loadable = new Map<number, WeakRef<Loadable>>();
const gone = new FinalizationRegistry<number>((handle) => loadable.delete(handle));
let last = 0;

/** Gives an object the number by which {@link scriptedLoader} finds it. */
export function handleOf(object: Loadable): number {
  const handle = ++last;
  loadable.set(handle, new WeakRef(object));
  gone.register(object, handle);
  return handle;
}

const word = new BigUint64Array(1);
const handle = new Uint32Array(1);

/** The addon's loader for memories and address spaces that are not the addon's. */
export const scriptedLoader: NativeLoader = {
  word,
  handle,
  load() {
    word[0] = loadable.get(handle[0]!)!.deref()!.readU64(word[0]!);
  },
};
