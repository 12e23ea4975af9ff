// @ts-check
/** Debian packages of any suite, downloaded and unpacked without touching the host's own apt. */
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheFolder, exists, locked } from './cache.mjs';
import { run, stderrLog } from './run.mjs';

/**
 * @typedef {{ name: string, version: string, file: string }} Package a package and its file's name
 * in apt's cache
 */

/**
 * The suites the lab knows, and what else each needs to be complete. @type {Record<string,
 * string[]>}
 */
const SUITES = { bullseye: [], bookworm: [], trixie: [], sid: [], experimental: ['sid'] };

/** How old package lists may get before they are fetched again, in ms. */
const LISTS_AGE = 7 * 24 * 3600 * 1000;

/**
 * The Debian archive to download from: `NODE_LIBVMI_DEBIAN_MIRROR`, else the one that the host's
 * own apt uses.
 *
 * @returns {Promise<string>} a URI
 * @throws {Error} when the host's apt knows no Debian archive
 */
export async function mirror() {
  const own = process.env.NODE_LIBVMI_DEBIAN_MIRROR;
  if (own) return own;
  const text = await run('apt-get', [
    'indextargets',
    '--format',
    '$(ORIGIN)\t$(LABEL)\t$(REPO_URI)',
    'Created-By: Packages',
  ]);
  for (const line of text.split('\n')) {
    const [origin, label, uri] = line.split('\t');
    // "Debian" alone: not Debian-Security and not a backport, which have only some packages
    if (uri && origin === 'Debian' && label === 'Debian') return uri;
  }
  // without downloaded lists apt does not know an origin; the archive is the one with a plain suite
  for (const line of (await run('apt-get', ['update', '--print-uris'])).split('\n')) {
    const [, uri] = /^'([^']*\/debian\/?)\/dists\/[a-z]+\/InRelease'/.exec(line) ?? [];
    if (uri) return uri;
  }
  throw new Error(
    "no Debian archive in this host's apt sources: set NODE_LIBVMI_DEBIAN_MIRROR to the URI of one",
  );
}

/** A private apt for one suite. */
export class Apt {
  /** @param {string} suite @param {import('./run.mjs').Log} [log] */
  constructor(suite, log = stderrLog) {
    if (!Object.hasOwn(SUITES, suite))
      throw new RangeError(
        `Expected suite of ${Object.keys(SUITES).join(', ')} but received ${suite}`,
      );
    this.suite = suite;
    this.log = log;
    this.folder = join(cacheFolder(), 'apt', suite);
  }

  /** Options that make apt use this folder, and believe that nothing is installed. */
  get #options() {
    const f = this.folder;
    return [
      `Dir::Etc::sourcelist=${f}/sources.list`,
      'Dir::Etc::sourceparts=-',
      `Dir::State=${f}`,
      `Dir::State::lists=${f}/lists`,
      `Dir::State::status=${f}/status`,
      `Dir::Cache=${f}/cache`,
      'APT::Architecture=amd64',
      'APT::Architectures=amd64',
      `APT::Default-Release=${this.suite}`,
      'APT::Install-Recommends=false',
      'APT::Sandbox::User=',
      'Debug::NoLocking=true',
      'Acquire::Languages=none',
      'Acquire::Check-Valid-Until=false',
      'Acquire::Retries=3',
    ].flatMap((option) => ['-o', option]);
  }

  /** Fetches the package lists if they are absent or old. @param {boolean} [force] */
  async #update(force = false) {
    const stamp = join(this.folder, 'updated');
    const age = await stat(stamp).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => Infinity,
    );
    if (age < (force ? 60_000 : LISTS_AGE)) return;
    this.log(`fetching the package lists of ${this.suite}`);
    await mkdir(join(this.folder, 'lists', 'partial'), { recursive: true });
    await mkdir(join(this.folder, 'cache', 'archives', 'partial'), { recursive: true });
    await writeFile(join(this.folder, 'status'), '');
    const uri = await mirror();
    const key = '/usr/share/keyrings/debian-archive-keyring.gpg';
    const signed = (await exists(key)) ? ` signed-by=${key}` : '';
    await writeFile(
      join(this.folder, 'sources.list'),
      [this.suite, ...(SUITES[this.suite] ?? [])]
        .map((suite) => `deb [arch=amd64${signed}] ${uri} ${suite} main\n`)
        .join(''),
    );
    await run('apt-get', [...this.#options, 'update', '--error-on=any']).catch((error) => {
      if (age === Infinity) throw error;
      this.log(
        `cannot fetch the package lists of ${this.suite}, using the old ones: ${error.message}`,
      );
    });
    await writeFile(stamp, '');
  }

  /**
   * Finds everything that the named packages need, as if nothing was installed.
   *
   * @param {string[]} names
   * @returns {Promise<Package[]>}
   */
  resolve(names) {
    return locked(`${this.folder}.lock`, () => this.#resolve(names));
  }

  /** @param {string[]} names @returns {Promise<Package[]>} */
  async #resolve(names) {
    await this.#update();
    const text = await run('apt-get', [
      ...this.#options,
      '-y',
      '--print-uris',
      'install',
      ...names,
    ]);
    const packages = [];
    for (const line of text.split('\n')) {
      // 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE HASH
      const [, file, name, version] = /^'[^']+' (([^_ ]+)_([^_ ]+)_[^_ ]+\.deb) /.exec(line) ?? [];
      if (file && name && version)
        packages.push({ file, name, version: decodeURIComponent(version) });
    }
    return packages;
  }

  /**
   * Downloads packages and unpacks them into one folder.
   *
   * @param {(resolved: Package[]) => Package[]} choose which of the resolved packages to unpack
   * @param {string[]} names what to resolve
   * @param {string} folder where to; made if absent
   * @returns {Promise<Package[]>} the packages unpacked
   */
  unpack(names, choose, folder) {
    return locked(`${this.folder}.lock`, async () => {
      let packages = choose(await this.#resolve(names));
      try {
        await this.#download(packages);
      } catch {
        // the archive moved on since the lists were fetched
        await this.#update(true);
        packages = choose(await this.#resolve(names));
        await this.#download(packages);
      }
      await mkdir(folder, { recursive: true });
      for (const { file } of packages)
        await run('dpkg', ['-x', join(this.folder, 'debs', file), folder]);
      return packages;
    });
  }

  /** @param {Package[]} packages */
  async #download(packages) {
    const folder = join(this.folder, 'debs');
    await mkdir(folder, { recursive: true });
    const wanted = [];
    for (const { name, version, file } of packages)
      if (!(await exists(join(folder, file)))) wanted.push(`${name}=${version}`);
    if (wanted.length === 0) return;
    this.log(
      `downloading ${wanted.length} package${wanted.length === 1 ? '' : 's'} of ${this.suite}: ${wanted.join(' ')}`,
    );
    await run('apt-get', [...this.#options, 'download', ...wanted], { cwd: folder }); // moved there when whole
  }
}
