import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { runTool } from './tool.js';

/**
 * Types of a file with DWARF, as BTF: pahole makes it.
 * @throws {VmiError} `VMI_ATTACH`: pahole is not installed, or fails
 */
export async function btfOfDwarf(path: string): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'node-libvmi-btf-'));
  try {
    const made = join(folder, 'types.btf');
    await runTool({
      command: 'pahole',
      args: [`--btf_encode_detached=${made}`, resolve(path)],
      file: path,
      advice: "its types are DWARF, which pahole reads: install it (Debian's package dwarves)",
    });
    return await readFile(made);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
