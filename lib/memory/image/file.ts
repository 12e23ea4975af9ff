import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { VmiError } from '../../errors.js';

/** Longest single read of what a file says about itself: no header, table or list is longer. */
const MAX_READ = 256 << 20;

/** Where the bytes of a dump are: a file, or what a flattened or compressed one unpacks to. */
export interface Bytes {
  /** Bytes in all. */
  readonly size: bigint;
  /** Reads `length` bytes at `offset`; fewer where it ends. */
  read(offset: bigint, length: number): Buffer;
}

/** A memory image on this host, open for reading, and the one form of what is said of it. */
export class ImageFile implements Bytes {
  readonly path: string;
  readonly fd: number;
  readonly size: bigint;

  /**
   * @param fd of what the file unpacks to, where it was packed
   * @throws {VmiError} `VMI_ATTACH`: no such file, no right to read it, no regular file
   */
  constructor(path: string, fd = openFile(path)) {
    this.path = path;
    this.fd = fd;
    this.size = fstatSync(this.fd, { bigint: true }).size;
  }

  read(offset: bigint, length: number): Buffer {
    if (offset < 0n || offset >= this.size || length <= 0) return Buffer.alloc(0);
    const rest = this.size - offset;
    const bytes = Buffer.alloc(rest < BigInt(length) ? Number(rest) : length);
    let done = 0;
    while (done < bytes.length) {
      const part = readSync(this.fd, bytes, done, bytes.length - done, offset + BigInt(done));
      if (part === 0) break;
      done += part;
    }
    return bytes.subarray(0, done);
  }

  /** The error for a file that cannot be used. */
  fail(why: string): VmiError {
    return new VmiError('VMI_ATTACH', `${this.path} cannot be used as a memory image: ${why}`);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/**
 * All `length` bytes at `offset`.
 * @throws {VmiError} `VMI_ATTACH`: the file ends before
 */
export function exactly(
  bytes: Bytes,
  file: ImageFile,
  offset: bigint,
  length: number,
  what: string,
): Buffer {
  if (length > MAX_READ) throw file.fail(`its ${what} would have ${length} bytes`);
  const read = bytes.read(offset, length);
  if (read.length < length) {
    throw file.fail(`it is truncated within its ${what}. Copy it again, whole`);
  }
  return read;
}

function openFile(path: string): number {
  try {
    if (!statSync(path).isFile()) {
      throw new VmiError('VMI_ATTACH', `${path} is no memory image: it is not a regular file`);
    }
    return openSync(path, 'r');
  } catch (error) {
    if (error instanceof VmiError) throw error;
    const why = { ENOENT: 'there is no such file', EACCES: 'no right to read it' }[
      (error as NodeJS.ErrnoException).code ?? ''
    ];
    throw new VmiError('VMI_ATTACH', `cannot open ${path}: ${why ?? (error as Error).message}`, {
      cause: error,
    });
  }
}
