import { closeSync } from 'node:fs';
import type { Source } from '../source.js';
import type { DumpContent } from './content.js';
import { isElf, readElfCore } from './elf-core.js';
import { ImageFile } from './file.js';
import { isKdump, readKdump } from './kdump.js';
import { isLime, readLime } from './lime.js';
import { openContent } from './open-content.js';
import { rawSource } from './raw.js';

/** A format that a dump names itself. */
interface DumpFormat {
  /** Whether a file starts like it. @param head up to 4,096 bytes */
  readonly is: (head: Buffer) => boolean;
  /** @throws {VmiError} `VMI_ATTACH` */
  readonly read: (file: ImageFile) => DumpContent;
}

const FORMATS: readonly DumpFormat[] = [
  { is: isElf, read: readElfCore },
  { is: isLime, read: readLime },
  { is: isKdump, read: readKdump },
];

const HEAD = 4096;

/**
 * Opens a memory image: one of {@link FORMATS}, or raw RAM (a `memory-backend-file`, `pmemsave`).
 * @throws {VmiError} `VMI_ATTACH`: no such file, no right, truncated, or no image
 */
export function openImage(path: string): Source {
  const file = new ImageFile(path);
  try {
    const head = file.read(0n, HEAD);
    const format = FORMATS.find(({ is }) => is(head));
    return format === undefined ? rawSource(file, head) : dumpSource(path, format.read(file));
  } finally {
    file.close();
  }
}

function dumpSource(path: string, content: DumpContent): Source {
  // Taken by the memory that is opened, or else closed with the source.
  let unpacked = content.unpacked;
  return {
    candidates: [
      {
        assumption: content.format,
        proven: true,
        open: () => {
          unpacked = undefined;
          return openContent(path, content);
        },
      },
    ],
    close: async () => {
      if (unpacked !== undefined) closeSync(unpacked);
      unpacked = undefined;
    },
  };
}
