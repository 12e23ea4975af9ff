import * as zlib from 'node:zlib';
import { decompress as unzstd } from 'fzstd';
import { VmiError } from '../../errors.js';
import { runTool } from './tool.js';

/*
 * A bootable kernel (Documentation/arch/x86/boot.rst): 0x1f1 sectors of setup code, 0x202 the magic
 * `HdrS`, 0x206 the version of the protocol, 0x248 where the packed kernel is, from the end of the
 * setup code on, 0x24c its bytes (since 2.08). Behind all but gzip's stands the unpacked length.
 */
const HDRS = Buffer.from('HdrS', 'latin1');
const SECTOR = 512;
const WITH_PAYLOAD = 0x0208;
const MAX_KERNEL = 512 << 20;
const MISSING = 'zstd is not installed';

/** How a kernel is packed, and the program that unpacks it where Node cannot. */
const PACKINGS = [
  { name: 'gzip', magic: [0x1f, 0x8b] },
  { name: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd] },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], args: ['-dc', '--single-stream'] },
  { name: 'lzma', magic: [0x5d, 0x00, 0x00], tool: 'xz', args: ['-dc', '--format=lzma'] },
  { name: 'lz4', magic: [0x02, 0x21, 0x4c, 0x18], args: ['-dc'] },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68], args: ['-dc'] },
  { name: 'lzop', magic: [0x89, 0x4c, 0x5a, 0x4f], args: ['-dc'] },
] as const;

export function isBzImage(bytes: Buffer): boolean {
  return bytes.length > 0x260 && bytes.subarray(0x202, 0x206).equals(HDRS);
}

/**
 * Unpacks the kernel of a bzImage (vmlinuz): an ELF file without `.symtab`, but with kallsyms and
 * BTF.
 * @throws {VmiError} `VMI_ATTACH`: packed in a way that nothing here can unpack, or damaged
 */
export async function unpackBzImage(bytes: Buffer, path: string): Promise<Buffer> {
  const broken = (why: string) =>
    new VmiError('VMI_ATTACH', `${path} is a bootable kernel that cannot be unpacked: ${why}`);
  if (bytes.readUInt16LE(0x206) < WITH_PAYLOAD)
    throw broken('its boot protocol is older than 2.08');
  const setup = (bytes[0x1f1]! || 4) + 1;
  const at = setup * SECTOR + bytes.readUInt32LE(0x248);
  const end = at + bytes.readUInt32LE(0x24c);
  if (end > bytes.length || end - at < 16) throw broken('it is cut off');
  const packed = bytes.subarray(at, end);
  const packing = PACKINGS.find(({ magic }) => magic.every((byte, i) => packed[i] === byte));
  if (packing === undefined) throw broken('it is packed in an unknown way');
  const body = packed.subarray(0, -4);
  try {
    if (packing.name === 'gzip') return zlib.gunzipSync(packed, { maxOutputLength: MAX_KERNEL });
    if (packing.name === 'zstd') return await unpackZstd(body, path);
  } catch (error) {
    throw broken((error as Error).message);
  }
  const command = 'tool' in packing ? packing.tool : packing.name;
  const advice = `it is packed with ${packing.name}: install ${command}, or give the vmlinux`;
  return runTool({ command, args: packing.args, file: path, advice, input: body });
}

/**
 * Node unpacks zstd since 22.15, and the program of that name does; without both it takes a minute.
 */
async function unpackZstd(body: Buffer, path: string): Promise<Buffer> {
  const { zstdDecompressSync } = zlib as { zstdDecompressSync?: typeof zlib.gunzipSync };
  if (zstdDecompressSync !== undefined)
    return zstdDecompressSync(body, { maxOutputLength: MAX_KERNEL });
  try {
    const advice = MISSING;
    return await runTool({ command: 'zstd', args: ['-dc'], file: path, advice, input: body });
  } catch (error) {
    if (!(error instanceof VmiError) || !error.message.endsWith(MISSING)) throw error;
    const { buffer, byteOffset, byteLength } = unzstd(body);
    return Buffer.from(buffer, byteOffset, byteLength);
  }
}
