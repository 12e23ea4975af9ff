import { type AddressLike, toAddress } from '../address.js';
import { fromNative } from '../errors.js';

/**
 * Native checks a bigint in passing, so that no read pays for it twice; the error is the one of
 * every address.
 */
export function failed(error: unknown, address: AddressLike): unknown {
  toAddress(address);
  return fromNative(error);
}
