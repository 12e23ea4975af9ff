// A dump in a file that is packed as a whole: gzip (1f 8b, RFC 1952) or zstd (28 b5 2f fd, RFC
// 8878). It is unpacked once, to a sparse file without a name; nothing of either can be read in the
// middle.
import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';
import { ImageFile } from './file.js';
import { MAX_ZSTD_WINDOW, zstdWindow } from './packings.js';
import { Unpacked } from './unpacked.js';

const PAGE = 4096;
const GZIP = 0x1f8b;
const ZSTD = 0x28b5_2ffd;

/** The name of what a file is packed with; `undefined`: it is not packed. */
export function packedWith(head: Buffer): 'gzip' | 'zstd' | undefined {
  if (head.length >= 2 && head.readUInt16BE(0) === GZIP) return 'gzip';
  return head.length >= 4 && head.readUInt32BE(0) === ZSTD ? 'zstd' : undefined;
}

/**
 * Unpacks a file.
 * @throws {VmiError} `VMI_ATTACH`: broken, truncated, or too large for the folder of temporary
 * files
 */
export async function unwrap(file: ImageFile, how: 'gzip' | 'zstd'): Promise<ImageFile> {
  const target = new Unpacked(file);
  const writer = new SparseWriter(target);
  try {
    if (how === 'gzip') await gunzip(file, writer);
    else await unzstd(file, writer);
    target.reach(writer.length);
    return new ImageFile(file.path, target.fd);
  } catch (error) {
    target.close();
    const why = (error as Error).message;
    throw (error as { code?: string }).code === 'VMI_ATTACH'
      ? error
      : file.fail(`it cannot be unpacked (${how}: ${why})`);
  }
}

async function gunzip(file: ImageFile, writer: SparseWriter): Promise<void> {
  const stream = createReadStream(file.path).pipe(createGunzip());
  for await (const part of stream) writer.write(part as Buffer);
}

async function unzstd(file: ImageFile, writer: SparseWriter): Promise<void> {
  if (zstdWindow(file.read(0n, 18)) > MAX_ZSTD_WINDOW) {
    // A whole that is one segment says its size there: streams of zstd(1) do not.
    throw file.fail(`its zstd window is larger than ${MAX_ZSTD_WINDOW >> 20} MiB: unpack it first`);
  }
  let ended = false;
  const stream = new Decompress((part, final) => {
    writer.write(part);
    ended = final === true;
  });
  for await (const part of createReadStream(file.path)) stream.push(part as Buffer);
  stream.push(new Uint8Array(0), true);
  if (!ended) throw new Error('unexpected end of file');
}

/** Writes a stream to a file; whole pages of zeroes stay holes. */
class SparseWriter {
  readonly #target: Unpacked;
  readonly #zeroes = Buffer.alloc(PAGE);
  length = 0n;

  constructor(target: Unpacked) {
    this.#target = target;
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      // To the end of the page that is being filled, or further where there is something.
      const part = PAGE - Number(this.length % BigInt(PAGE));
      const end = Math.min(bytes.length, at + part);
      const piece = bytes.subarray(at, end);
      if (piece.length < PAGE || !this.#zeroes.equals(piece))
        this.#target.putAt(this.length, piece);
      this.length += BigInt(piece.length);
      at = end;
    }
  }
}
