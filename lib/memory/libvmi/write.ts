import { openSync } from 'node:fs';
import { hex, VmiError } from '../../errors.js';
import { type LibvmiSession, withLog } from '../../libvmi/session.js';

const PAGE_SIZE = 0x1000n;

/** vmi_write_pa(), a page at a time: libvmi's drivers write within one page. */
export function writeDomain(
  session: LibvmiSession,
  what: string,
  address: bigint,
  bytes: Uint8Array,
): number {
  for (let done = 0; done < bytes.length; ) {
    const at = address + BigInt(done);
    const part = bytes.subarray(done, done + Number(PAGE_SIZE - (at % PAGE_SIZE)));
    const call = session.callNow('vmi_write_pa', [at, part.length, part]);
    const { failed, values, log } = call;
    if (failed) {
      const partly = done === 0 ? '' : ` (${done} bytes were written before it)`;
      throw new VmiError(
        'VMI_UNSUPPORTED',
        withLog(`${what}: libvmi cannot write ${part.length} bytes at ${hex(at)}${partly}`, log),
      );
    }
    done += Math.min(Number(values[0]), part.length);
    if (Number(values[0]) < part.length) return done;
  }
  return bytes.length;
}

/** Opens a file of raw RAM. @throws {VmiError} `VMI_ATTACH` */
export function openFile(path: string, write: boolean): number {
  try {
    return openSync(path, write ? 'r+' : 'r');
  } catch (error) {
    const how = write ? ' for writing' : '';
    throw new VmiError('VMI_ATTACH', `cannot open ${path}${how}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** libvmi/driver/file/file.c, `file_write`: it fails, always. */
export function notWritten(path: string): VmiError {
  return new VmiError(
    'VMI_UNSUPPORTED',
    `libvmi's file driver does not write, so libvmi:${path} is written through a mapping of the file, which was not asked for (map: false) or does not show what libvmi reads`,
  );
}
