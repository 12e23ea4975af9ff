import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NativeSegment } from '../../../types/addon.js';
import { type AddressLike, toAddress } from '../../address.js';
import { VmiError } from '../../errors.js';
import { checkObject, checkOptions, describe } from '../../options.js';
import { inOrder, toPages } from './ranges.js';

/** A piece of RAM, and where its bytes are on this host. */
export type MemorySegment = FileSegment | BufferSegment | ProcessSegment;

/** Where a segment is. */
export interface SegmentPlace {
  /** Guest-physical address of the first byte, a multiple of 4,096. */
  readonly physical: AddressLike;
}

/** Bytes of a file, which is mapped: reads see what is written to it. */
export interface FileSegment extends SegmentPlace {
  readonly file: string;
  /** Where in the file it begins, a multiple of 4,096; default 0. */
  readonly offset?: AddressLike | undefined;
  /** Bytes, a multiple of 4,096; default: all whole pages up to the file's end. */
  readonly length?: AddressLike | undefined;
}

/** A copy of bytes, made when the memory is opened. */
export interface BufferSegment extends SegmentPlace {
  /** A multiple of 4,096 bytes. */
  readonly buffer: Uint8Array;
}

/** Memory of a process of this host, which this user must be allowed to trace. */
export interface ProcessSegment extends SegmentPlace {
  /** The same in all segments. */
  readonly pid: number;
  /** Where it is in the process, a multiple of 4,096. */
  readonly address: AddressLike;
  /** Bytes, a multiple of 4,096. */
  readonly length: AddressLike;
}

/** Segments as the addon takes them. */
export interface PlacedSegments {
  readonly segments: NativeSegment[];
  readonly pid: number | undefined;
  readonly description: string;
  /** What the files are, by descriptor: paths, or a buffer. */
  readonly files: ReadonlyMap<number, string>;
  /** Closes what was opened: a mapping keeps its file. */
  release(): void;
}

/**
 * Checks segments and opens what they name.
 * @throws {TypeError} a segment that is none of the three kinds, or of two processes
 * @throws {RangeError} no whole pages, or an overlap
 * @throws {VmiError} `VMI_ATTACH`: a file that cannot be opened
 */
export function placeSegments(segments: readonly MemorySegment[]): PlacedSegments {
  if (!Array.isArray(segments) || segments.length === 0)
    throw new TypeError(
      `Expected segments as a list of files, buffers or parts of a process but received ${Array.isArray(segments) ? 'an empty one' : describe(segments)}`,
    );
  const files = new Map<number, string>();
  const release = () => {
    for (const fd of files.keys()) closeSync(fd);
    files.clear();
  };
  const names = new Set<string>();
  let pid: number | undefined;
  try {
    // Not by map: it passes over holes.
    const placed = Array.from(segments, (given: MemorySegment, i): NativeSegment => {
      const segment = withoutUndefined(checkObject(given, `segment ${i}`));
      if ('pid' in segment) {
        const native = ofProcess(segment, i);
        if (pid !== undefined && pid !== segment.pid)
          throw new TypeError(
            `Expected segments of one process but received those of ${pid} and ${segment.pid}`,
          );
        pid = segment.pid;
        names.add(`process ${pid}`);
        return native;
      }
      const [native, name] = ofFile(segment, i);
      files.set(native.fd!, name);
      names.add(name);
      return native;
    });
    inOrder(placed.map(({ physical, length }) => ({ start: physical, length })));
    return { segments: placed, pid, description: [...names].join(', '), files, release };
  } catch (error) {
    release();
    throw error;
  }
}

/** What is given as `undefined` is left out. */
function withoutUndefined(segment: MemorySegment): MemorySegment {
  const given = Object.entries(segment).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as unknown as MemorySegment;
}

function ofProcess(segment: ProcessSegment, i: number): NativeSegment {
  checkOptions(segment, { physical: true, pid: true, address: true, length: true }, `segment ${i}`);
  const { pid } = segment;
  if (!Number.isInteger(pid) || pid < 1 || pid > 0x7fff_ffff)
    throw new RangeError(
      `Expected pid of segment ${i} as the id of a process but received ${describe(pid)}`,
    );
  return {
    kind: 'process',
    physical: toPages(segment.physical, `physical of segment ${i}`),
    length: toPages(segment.length, `length of segment ${i}`),
    offset: toPages(segment.address, `address of segment ${i}`),
  };
}

function ofFile(segment: FileSegment | BufferSegment, i: number): [NativeSegment, string] {
  const what = `segment ${i}`;
  if ('buffer' in segment) {
    checkOptions(segment, { physical: true, buffer: true }, what);
    const { buffer } = segment;
    if (!(buffer instanceof Uint8Array))
      throw new TypeError(
        `Expected buffer of ${what} as a Uint8Array but received ${describe(buffer)}`,
      );
    const physical = toPages(segment.physical, `physical of ${what}`);
    const length = toPages(buffer.length, `length of ${what}`);
    return [{ kind: 'file', physical, length, offset: 0n, fd: copyOf(buffer) }, 'a buffer'];
  }
  checkOptions(segment, { physical: true, file: true, offset: true, length: true }, what);
  if (typeof segment.file !== 'string')
    throw new TypeError(
      `Expected ${what} with a file, a buffer or a pid but received ${describe(segment.file)}`,
    );
  const physical = toPages(segment.physical, `physical of ${what}`);
  const offset = toPages(segment.offset ?? 0n, `offset of ${what}`);
  const fd = openFile(segment.file);
  try {
    const size = BigInt(fstatSync(fd).size);
    const length =
      segment.length === undefined
        ? (size > offset ? size - offset : 0n) & ~0xfffn
        : toPages(segment.length, `length of ${what}`);
    if (offset + length > size || length === 0n)
      throw new RangeError(
        `Expected ${what} within ${segment.file} but its ${size} bytes end before ${toAddress(offset + (length || 1n))}`,
      );
    return [{ kind: 'file', physical, length, offset, fd }, segment.file];
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `cannot open ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Bytes as a file without a name, which native code can map. */
function copyOf(bytes: Uint8Array): number {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-'));
  try {
    const fd = openSync(join(folder, 'ram'), 'w+', 0o600);
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
