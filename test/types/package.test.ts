import { execFile } from 'node:child_process';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeResolve } from '@rollup/plugin-node-resolve';
import { build as esbuild } from 'esbuild';
import { rollup } from 'rollup';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { unexportedTypes } from './reach.js';

/**
 * The package as its users get it: packed, installed beside their code, imported, required,
 * typechecked, run. Nothing is fetched: what it depends on is in it.
 */
const root = fileURLToPath(new URL('../..', import.meta.url));
const modules = join(root, 'node_modules');
let project: string;
let packageRoot: string;
let files: string[];

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), 'node-libvmi-packed-'));
  const pack = await run('npm', ['pack', root, '--ignore-scripts', '--json', '--loglevel=error']);
  const [packed] = JSON.parse(pack.stdout) as { filename: string; files: { path: string }[] }[];
  files = packed!.files.map(({ path }) => path);
  await writeFile(
    join(project, 'package.json'),
    '{ "name": "consumer", "version": "1.0.0", "private": true }\n',
  );
  await run('npm', [
    'install',
    `./${packed!.filename}`,
    ...[
      '--ignore-scripts',
      '--offline',
      '--cache',
      join(project, 'npm'),
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
    ],
  ]);
  packageRoot = join(project, 'node_modules', 'node-libvmi');
}, 60_000);

afterAll(() => rm(project, { recursive: true, force: true }));

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(
  command: string,
  args: readonly string[],
  expected: number | 'any' = 0,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd: project, timeout: 40_000, env }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      if (expected === 'any' || code === expected) resolve({ code, stdout, stderr });
      else
        reject(new Error(`${command} ${args.join(' ')} ended with ${code}:\n${stdout}\n${stderr}`));
    });
  });
}

const node = (code: string, type: 'module' | 'commonjs') =>
  run(process.execPath, [`--input-type=${type}`, '-e', code]);

/** A file of every form that TypeScript code comes in, over everything that is exported. */
async function typecheck(name: string, source: string, options: object): Promise<string> {
  const folder = join(project, `check-${name.replace(/\W/g, '-')}`);
  await mkdir(folder);
  await writeFile(join(folder, name), source);
  const compilerOptions = {
    target: 'ES2023',
    lib: ['ES2023', 'ESNext.Disposable'],
    strict: true,
    exactOptionalPropertyTypes: true,
    // The shipped declarations are what is checked.
    skipLibCheck: false,
    noEmit: true,
    typeRoots: [join(modules, '@types')],
    types: ['node'],
    ...options,
  };
  await writeFile(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions, files: [name] }),
  );
  const { stdout, stderr } = await run(
    process.execPath,
    [join(modules, 'typescript', 'bin', 'tsc'), '-p', folder],
    'any',
  );
  return stdout + stderr;
}

const USE = `
export async function use(): Promise<bigint | null> {
  const options: AttachOptions = { cache: false, signal: AbortSignal.timeout(1) };
  await using guest: Guest = await attach('qemu:1', options);
  const rows: CrossRow[] = guest.crossView();
  const task: Task = guest.task(1);
  const columns: TaskColumns = guest.taskColumns({ threads: true });
  const symbols: string[] = guest.kernel.symbols.complete('init_');
  const offset: number = guest.type('task_struct').member('mm').offset;
  const base: bigint = cr3Base(guest.kernel.cr3, guest.kernel.pti);
  const report: LibvmiReport = libvmiReport();
  const mode: LibvmiOptions = { mode: 'file', name: report.path ?? '' };
  await using libvmi: Libvmi = await Libvmi.init(mode);
  await libvmi.initOs({ kernel: libvmiKernel(guest.kernel) });
  const listed: ListedGuest[] = listGuests();
  const findings: Finding[] = await diagnose();
  await writeProfile(guest, 'isf', process.stdout);
  const read: ReadMemory = (address, into) => into.fill(Number(address & 0xffn)).length;
  const memory: PhysicalMemory = openMemory({ ranges: [{ start: 0, length: 4096 }], read });
  await using other: Guest = await attach({ memory });
  const source: Source = await openSource(parseTarget('image:/x'));
  const space = new VirtualMemory(source.candidates[0]!.open(), 0x1000n, 4);
  // @ts-expect-error no such option
  await attach('qemu:1', { profiles: [] });
  void [listed, findings, other, space];
  const symbol: bigint = await libvmi.translateKsym2v('init_task', { deadline: 10 });
  // @ts-expect-error an address is no string
  guest.read('0x1000', 8);
  // @ts-expect-error no such mode
  await Libvmi.init({ mode: 'vmware', name: '' });
  void [rows, task, columns, symbols, offset, base, symbol];
  return guest.pidToCr3(1);
}
`;
const ESM = `
import {
  type AttachOptions, attach, type CrossRow, cr3Base, diagnose, type Finding, type Guest, libvmiKernel, type ListedGuest,
  listGuests, openMemory, openSource, parseTarget, type PhysicalMemory, type ReadMemory, type Source, type Task,
  type TaskColumns, VirtualMemory, writeProfile,
} from 'node-libvmi';
import { Libvmi, type LibvmiOptions, type LibvmiReport, libvmiReport } from 'node-libvmi/libvmi';
${USE}`;

describe('the packed package', () => {
  it('holds what it needs to be built and used, and nothing else', async () => {
    expect(files).toEqual(
      expect.arrayContaining([
        'package.json',
        'README.md',
        'LICENSE',
        'binding.gyp',
        'types/addon.d.ts',
        'scripts/build-addon.mjs',
        'CHANGELOG.md',
        'SECURITY.md',
      ]),
    );
    const strangers = files.filter(
      (path) =>
        !/^(node_modules\/(bindings|file-uri-to-path|fzstd|get-east-asian-width|node-addon-api|node-gyp-build)\/.*|dist\/.*\.(js|d\.ts|js\.map)|dist\/bundle\/cli\/(vmi|program|rest)\.cjs|dist\/man\/vmi\.1|native\/.*\.(cpp|cc|h|hpp|map|lds|txt)|types\/[\w-]+\.d\.ts|prebuilds\/linux-(x64|arm64)\/(node-libvmi\.glibc\.node|libvmi_host)|scripts\/build-addon\.mjs|docs\/tutorial\.rec|[\w.]+)$/.test(
          path,
        ),
    );
    expect(strangers).toEqual([]);
  });

  it('runs nothing when it is installed', async () => {
    const manifest = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8'));
    expect(manifest.gypfile).toBe(false);
    for (const name of ['preinstall', 'install', 'postinstall'])
      expect(manifest.scripts[name]).toBeUndefined();
  });

  it('says how to build the addon where there is none', async () => {
    await rm(join(packageRoot, 'prebuilds'), { recursive: true, force: true });
    const { stdout } = await run(join(project, 'node_modules', '.bin', 'vmi'), ['doctor'], 3);
    expect(stdout).toMatch(/problem\s+addon\s+cannot load the native addon/);
    expect(stdout).toContain('npx node-libvmi-build');
    // The size of a guest's RAM, without its contents.
    await writeFile(join(project, 'ram'), '');
    await truncate(join(project, 'ram'), 64 << 20);
    const code = `const { attach } = await import('node-libvmi');
      await attach('image:ram').catch((error) => console.log(error.code));`;
    expect((await node(code, 'module')).stdout).toBe('VMI_ADDON_MISSING\n');
  });
});

describe('the addon', () => {
  const doctor = async (env: NodeJS.ProcessEnv = {}) => {
    const vmi = join(project, 'node_modules', '.bin', 'vmi');
    const { stdout } = await run(vmi, ['doctor'], 'any', { ...process.env, ...env });
    return stdout.split('\n').find((line) => line.includes('addon'));
  };
  const folder = () => join(packageRoot, 'prebuilds', `linux-${process.arch}`);
  const released = join(root, 'build', 'Release', 'vmi_addon.node');
  afterAll(() => rm(join(packageRoot, 'prebuilds'), { recursive: true, force: true }));

  it('is the one that came with the package', async () => {
    await mkdir(folder(), { recursive: true });
    await copyFile(released, join(folder(), 'node-libvmi.glibc.node'));
    expect(await doctor()).toMatch(/^ok +addon/);
    // One that does not fit this host is told as such.
    await writeFile(join(folder(), 'node-libvmi.glibc.node'), 'no ELF file');
    expect(await doctor()).toMatch(/^problem +addon +cannot load the native addon: .*node-libvmi/);
    await rm(folder(), { recursive: true });
    expect(await doctor()).toContain(`none came with the package for linux ${process.arch}`);
  });

  it('is the one that NODE_LIBVMI_ADDON names', async () => {
    expect(await doctor({ NODE_LIBVMI_ADDON: released })).toMatch(/^ok +addon/);
    expect(await doctor({ NODE_LIBVMI_ADDON: '/nowhere/x.node' })).toMatch(
      /^problem +addon +cannot load the native addon: NODE_LIBVMI_ADDON names \/nowhere\/x.node: /,
    );
  });

  it('is built by one command, which names what is missing', async () => {
    const build = join(project, 'node_modules', '.bin', 'node-libvmi-build');
    const bare = {
      PATH: dirname(process.execPath),
      PYTHON: '/nowhere/python3',
      CXX: '/nowhere/g++',
    };
    const { code, stderr } = await run(build, [], 'any', bare);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^node-libvmi-build: \/nowhere\/python3, (make, )?\/nowhere\/g\+\+ is not installed: /,
    );
    expect(stderr).toMatch(/apt-get install python3 (make )?g\+\+|apk add/);
  });
});

describe('the installed package', () => {
  beforeAll(() => symlink(join(root, 'build'), join(packageRoot, 'build')));

  it('is imported', async () => {
    const code = `import * as vmi from 'node-libvmi';
      import * as raw from 'node-libvmi/libvmi';
      console.log(JSON.stringify({ attach: typeof vmi.attach, hex: vmi.hex(4096n), raw: Object.keys(raw).sort() }));
      await vmi.attach('image:/nowhere').catch((error) => console.log(error.code, error instanceof raw.VmiError));`;
    const { stdout, stderr } = await node(code, 'module');
    expect(stdout.split('\n')).toEqual([
      JSON.stringify({
        attach: 'function',
        hex: '0x1000',
        raw: ['Cr3WriteStream', 'CrashError', 'FaultError', 'Libvmi', 'VmiError', 'libvmiReport'],
      }),
      'VMI_ATTACH true',
      '',
    ]);
    expect(stderr).toBe('');
  });

  it('is required, and is the same package then', async () => {
    const code = `const vmi = require('node-libvmi');
      const raw = require('node-libvmi/libvmi');
      console.log(typeof vmi.attach, typeof raw.libvmiReport().loaded, require('node-libvmi/package.json').name);
      import('node-libvmi').then((again) => console.log(again.Guest === vmi.Guest));`;
    expect((await node(code, 'commonjs')).stdout).toBe('function boolean node-libvmi\ntrue\n');
  });

  it('is imported by worker threads, each for itself', async () => {
    const code = `const { Worker } = require('node:worker_threads');
      const body = "import('node-libvmi').then(({ listGuests, hex }) => " +
        "require('node:worker_threads').parentPort.postMessage(typeof listGuests() + hex(1n)))";
      const workers = [1, 2, 3].map(() => new Worker(body, { eval: true }));
      Promise.all(workers.map((worker) => new Promise((resolve, reject) =>
        worker.once('message', resolve).once('error', reject)))).then((all) => console.log(...all));`;
    expect((await node(code, 'commonjs')).stdout).toBe('object0x1 object0x1 object0x1\n');
  });

  it('is bundled, where NODE_LIBVMI_ADDON names the binary', async () => {
    const entry = join(project, 'entry.mjs');
    await writeFile(
      entry,
      `import { diagnose } from 'node-libvmi';
       console.log((await diagnose()).find(({ check }) => check === 'addon').status);`,
    );
    const format = 'esm' as const;
    const into = (name: string) => join(project, 'bundled', name);
    await esbuild({
      entryPoints: [entry],
      outfile: into('esbuild.mjs'),
      bundle: true,
      platform: 'node',
      format,
    });
    const rolled = await rollup({
      input: entry,
      external: /^node:/,
      plugins: [nodeResolve({ exportConditions: ['node'] })],
    });
    await rolled.write({ file: into('rollup.mjs'), format, inlineDynamicImports: true });
    // Elsewhere, with nothing of the package beside them.
    const away = await mkdtemp(join(tmpdir(), 'node-libvmi-bundled-'));
    try {
      for (const name of ['esbuild.mjs', 'rollup.mjs']) {
        await copyFile(into(name), join(away, name));
        const env = {
          ...process.env,
          NODE_LIBVMI_ADDON: join(root, 'build/Release/vmi_addon.node'),
        };
        const { stdout } = await run(process.execPath, [join(away, name)], 0, env);
        expect([name, stdout]).toEqual([name, 'ok\n']);
      }
    } finally {
      await rm(away, { recursive: true });
    }
  });

  it('exports nothing else', async () => {
    const code = `await import('node-libvmi/dist/addon.js').catch((error) => console.log(error.code));`;
    expect((await node(code, 'module')).stdout).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED\n');
  });

  it('is typed for ES modules, CommonJS and bundlers', async () => {
    const nodeNext = { module: 'NodeNext', moduleResolution: 'NodeNext' };
    const results = await Promise.all([
      typecheck('esm.mts', ESM, nodeNext),
      typecheck('commonjs.cts', ESM, nodeNext),
      typecheck('bundled.ts', ESM, { module: 'ESNext', moduleResolution: 'Bundler' }),
    ]);
    expect(results).toEqual(['', '', '']);
  });

  it('exports every type that its signatures lead to', () => {
    const missing = unexportedTypes(join(packageRoot, 'dist'), ['index.d.ts', 'libvmi/index.d.ts']);
    expect(missing).toEqual([]);
  });

  it('has declarations that stay within the package', async () => {
    const outside: string[] = [];
    const all = await readdir(join(packageRoot, 'dist'), { recursive: true });
    for (const path of all.filter((path) => path.endsWith('.d.ts'))) {
      const text = await readFile(join(packageRoot, 'dist', path), 'utf8');
      for (const [, from = ''] of text.matchAll(/(?:from|import\()\s*'([^']+)'/g)) {
        if (from.startsWith('node:')) continue;
        const target = join('dist', path, '..', from).replace(/\.js$/, '.d.ts');
        if (!files.includes(target)) outside.push(`${path}: ${from}`);
      }
    }
    expect(outside).toEqual([]);
  });

  it('has a command that runs', async () => {
    const vmi = join(project, 'node_modules', '.bin', 'vmi');
    const { version } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as {
      version: string;
    };
    expect((await run(vmi, ['--version'])).stdout).toContain(version);
    expect((await run(vmi, ['doctor'], 'any')).stdout).toMatch(
      /ok\s+addon\s+the native addon loads/,
    );
    const { stderr } = await run(vmi, ['ps', 'image:/nowhere'], 3);
    expect(stderr).toMatch(/^vmi: .*\/nowhere/);
  });

  it('has a command whose compiled code is kept, and believed only where it can be', async () => {
    const vmi = join(project, 'node_modules', '.bin', 'vmi');
    const env = { ...process.env, XDG_CACHE_HOME: join(project, 'cache') };
    const folder = join(project, 'cache', 'node-libvmi', 'code');
    const help = async () => (await run(vmi, ['--help'], 0, env)).stdout;
    const first = await help();
    const [name = ''] = await readdir(folder);
    const kept = join(folder, name);
    // Run once, it is only remembered that it was.
    expect([name, (await readFile(kept)).length]).toEqual([expect.stringMatching(/-help-/), 0]);
    expect(await help()).toBe(first);
    const code = await readFile(kept);
    expect(code.length).toBeGreaterThan(10_000);
    expect((await stat(kept)).mode & 0o777).toBe(0o600);
    expect(await help()).toBe(first);
    expect(await readFile(kept)).toEqual(code);
    // Damaged code is compiled again: V8 would run it.
    for (const at of [0, 5_000, code.length - 1]) {
      const damaged = Buffer.from(code);
      damaged[at]! ^= 0x10;
      await writeFile(kept, damaged);
      expect(await help()).toBe(first);
    }
    await writeFile(kept, code.subarray(0, 4_096));
    expect(await help()).toBe(first);
    // Nor is code taken that another user could have written.
    await writeFile(kept, 'x'.repeat(64));
    await chmod(kept, 0o622);
    expect(await help()).toBe(first);
    // A folder that cannot be written costs time, and nothing else.
    const nowhere = { ...process.env, NODE_LIBVMI_CACHE: '/dev/null/nowhere' };
    expect((await run(vmi, ['--help'], 0, nowhere)).stdout).toBe(first);
  });

  it('has a command for modules of the user, which are loaded as modules', async () => {
    const vmi = join(project, 'node_modules', '.bin', 'vmi');
    expect((await run(vmi, ['run', '--help'])).stdout).toMatch(/^vmi run: /);
    const script = join(project, 'x.mjs');
    await writeFile(script, '');
    expect((await run(vmi, ['run', 'image:/nowhere', script], 3)).stderr).toMatch(/nowhere/);
  });
});
