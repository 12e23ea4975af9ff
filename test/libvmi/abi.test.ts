import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const CHECK = fileURLToPath(new URL('abi-check.cpp', import.meta.url));
const SOURCES = fileURLToPath(new URL('../../native/source/libvmi', import.meta.url));
const HEADERS = (process.env.LIBVMI_INCLUDE ?? '/usr/local/include:/usr/include')
  .split(':')
  .find((folder) => existsSync(`${folder}/libvmi/libvmi.h`));

if (HEADERS === undefined)
  console.log("skipped: libvmi's headers are not installed (LIBVMI_INCLUDE may name their folder)");

const compile = (sources: string) =>
  spawnSync(
    'c++',
    ['-std=c++17', '-fsyntax-only', '-Wall', '-Wextra', `-I${HEADERS}`, `-I${sources}`, CHECK],
    {
      encoding: 'utf8',
    },
  );

test.skipIf(HEADERS === undefined)("the table of calls is what libvmi's headers declare", () => {
  const { status, stderr } = compile(SOURCES);
  expect(stderr).toBe('');
  expect(status).toBe(0);
});

// Each a way in which a table could be wrong and still load and link.
test.skipIf(HEADERS === undefined).each([
  [
    'a parameter too many',
    '(Instance, Pid, Address*)',
    '(Instance, Pid, Address*, int)',
    /prototype of vmi_pid_to_dtb/,
  ],
  [
    'a narrower result',
    'X(12, uint64_t, vmi_get_vmid',
    'X(12, uint32_t, vmi_get_vmid',
    /prototype of vmi_get_vmid/,
  ],
  ['a wider type', 'using Pid = int32_t', 'using Pid = int64_t', /type of Pid/],
  ['a register of another number', 'X(CR3, 20)', 'X(CR3, 21)', /value of CR3/],
  ['an event at another offset', '== 9 ? 40 : 0', '== 9 ? 48 : 0', /reg_event_t::value/],
  [
    'a member at another offset',
    '  uint32_t reserved2;\n',
    '  uint64_t reserved2;\n',
    /access_context_t/,
  ],
])('%s is found', (_, from, to, complaint) => {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-abi-'));
  try {
    const table = readFileSync(`${SOURCES}/abi.h`, 'utf8');
    expect(table).toContain(from);
    writeFileSync(join(folder, 'abi.h'), table.replace(from, to));
    const { status, stderr } = compile(folder);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(complaint);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
