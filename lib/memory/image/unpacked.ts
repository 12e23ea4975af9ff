import { closeSync, ftruncateSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VmiError } from '../../errors.js';
import type { ImageFile } from './file.js';

const PAGE = 4096;

let made = 0;

/**
 * Pages of a dump that is packed, each at its own address in a sparse file without a name: whoever
 * holds the descriptor holds the bytes.
 */
export class Unpacked {
  readonly fd: number;
  readonly #file: ImageFile;

  /** @throws {VmiError} `VMI_ATTACH`: the folder for temporary files takes none */
  constructor(file: ImageFile) {
    this.#file = file;
    const name = join(tmpdir(), `node-libvmi-image-${process.pid}-${Date.now()}-${made++}`);
    try {
      this.fd = openSync(name, 'wx+', 0o600);
      unlinkSync(name);
    } catch (error) {
      throw this.#refused(error);
    }
  }

  /** Puts whole pages at a page frame number; what is zero may stay a hole. */
  put(pfn: number, pages: Uint8Array): void {
    this.putAt(BigInt(pfn * PAGE), pages);
  }

  /** Puts bytes at a physical address. */
  putAt(address: bigint, bytes: Uint8Array): void {
    try {
      writeSync(this.fd, bytes, 0, bytes.length, Number(address));
    } catch (error) {
      throw this.#refused(error);
    }
  }

  /** Makes the file reach as far as RAM does, holes and all. */
  reach(length: bigint): void {
    try {
      ftruncateSync(this.fd, Number(length));
    } catch (error) {
      throw this.#refused(error);
    }
  }

  close(): void {
    closeSync(this.fd);
  }

  #refused(error: unknown): VmiError {
    return new VmiError(
      'VMI_ATTACH',
      `${this.#file.path} is packed, and ${tmpdir()} does not take what it unpacks to (${(error as Error).message}): set TMPDIR to a folder with space for the guest's memory`,
      { cause: error },
    );
  }
}

/** Runs a parser that fills an unpacked file, which is closed should it fail. */
export function unpacking<T>(file: ImageFile, fill: (unpacked: Unpacked) => T): T {
  const unpacked = new Unpacked(file);
  try {
    return fill(unpacked);
  } catch (error) {
    unpacked.close();
    throw error;
  }
}
