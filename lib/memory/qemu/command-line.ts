// What a QEMU was started with: its command line, and the configuration files that it names. QEMU
// qemu-options.hx, util/qemu-option.c, util/qemu-config.c.

/** A part of main memory, in the order in which the parts follow each other. */
export interface MemoryBlock {
  /** Id of its backend; `undefined`: QEMU makes it of itself. */
  readonly id: string | undefined;
  /** Bytes. */
  readonly size: bigint;
}

/** A monitor that listens. */
export interface MonitorSocket {
  /** An absolute path as QEMU sees it, or `tcp:HOST:PORT`. */
  readonly address: string;
  /** Whether QEMU starts its guest only when a first client has come (`wait=on`). */
  readonly waits: boolean;
}

/** What a command line says. */
export interface QemuCommand {
  /** `-name`, without its options; empty when none was given. */
  readonly name: string;
  /** `-uuid`; libvirt gives every domain one. */
  readonly uuid: string | undefined;
  /** Whether the system's libvirtd started it: then `name` is the domain's. */
  readonly libvirt: boolean;
  readonly monitors: readonly MonitorSocket[];
  /** Bytes of `-m`; `undefined` when it cannot be told. */
  readonly memory: bigint | undefined;
  /** What `memory` is made of; `undefined` when it cannot be told. */
  readonly blocks: readonly MemoryBlock[] | undefined;
  /** Whether there is memory besides, whose place only the monitor tells. */
  readonly hasMemoryDevices: boolean;
  readonly machine: 'pc' | 'q35' | undefined;
  /** Bytes of `-machine max-ram-below-4g`; `undefined`: the machine's own rule. */
  readonly lowRam: bigint | undefined;
  /**
   * Ids of the memory backends that are shared (`-object memory-backend-…,share=on`): the names of
   * their RAM blocks.
   */
  readonly sharedBackends: readonly string[];
  /** What encrypts the guest's memory: `sev-guest`, `sev-snp-guest`, `tdx-guest`. */
  readonly encrypted: string | undefined;
  /** Configuration files that could not be read: what they say is not known. */
  readonly unread: readonly string[];
}

/**
 * Where the system's libvirtd keeps the key of each domain. libvirt src/qemu/qemu_domain.c,
 * `qemuDomainGetMasterKeyFilePath`.
 */
const LIBVIRT_KEY = /"?file"?[:=]"?\/var\/lib\/libvirt\/qemu\/domain-[^"]*\/master-key\.aes/;
const MEMORY_DEVICE = /^(pc-dimm|nvdimm|virtio-mem|virtio-pmem|cxl-type3)/;
const ENCRYPTED = /^(sev-guest|sev-snp-guest|tdx-guest)$/;

/** An option and its value; of one that takes none, the next option is its value here. */
type Option = readonly [name: string, value: string];

/**
 * Reads a command line.
 * @param directory what relative paths start from
 * @param readFile gives a configuration file as text; `undefined`: it cannot be read
 */
export function readCommand(
  args: readonly string[],
  directory: string,
  readFile: (path: string) => string | undefined,
): QemuCommand {
  const absolute = (path: string) => (path.startsWith('/') ? path : `${directory}/${path}`);
  const unread: string[] = [];
  const options: Option[] = [];
  for (const [i, arg] of args.entries()) {
    const name = /^--?([a-zA-Z][\w-]*)$/.exec(arg)?.[1];
    if (name === undefined || i === 0) continue;
    const value = args[i + 1] ?? '';
    const text = name === 'readconfig' ? readFile(absolute(value)) : undefined;
    if (name !== 'readconfig') options.push([name, value]);
    else if (text === undefined) unread.push(value);
    else options.push(...configured(text));
  }
  const all = (...names: string[]) =>
    options.filter(([name]) => names.includes(name)).map(([, value]) => value);
  const machine = all('machine', 'M').join(',');
  const known = unread.length === 0;
  const memory = memorySize(all('m'), known);
  return {
    name: guestName(all('name').at(-1) ?? ''),
    uuid: all('uuid').at(-1)?.toLowerCase(),
    libvirt: args.some((arg) => LIBVIRT_KEY.test(arg)),
    monitors: monitors(options, absolute),
    memory,
    blocks: blocksOf(memory, machine, all('object'), all('numa')),
    hasMemoryDevices: all('device').some((value) => MEMORY_DEVICE.test(typeOf(value, 'driver'))),
    machine: machineType(machine, known),
    lowRam: sizeOf(property(machine, 'max-ram-below-4g')),
    sharedBackends: sharedBackends(all('object')),
    encrypted: all('object')
      .map((value) => typeOf(value, 'qom-type'))
      .find((type) => ENCRYPTED.test(type)),
    unread,
  };
}

/** What a configuration file says, as options. QEMU util/qemu-config.c, `qemu_config_foreach`. */
function configured(text: string): Option[] {
  const sections: { name: string; values: Map<string, string> }[] = [];
  for (const line of text.split('\n')) {
    const head = /^\s*\[\s*([\w-]+)(?:\s+"([^"]*)")?\s*\]/.exec(line);
    const pair = /^\s*([\w.-]+)\s*=\s*"([^"]*)"/.exec(line);
    if (head !== null) {
      const id = head[2];
      const values = new Map(id === undefined ? [] : [['id', id]]);
      sections.push({ name: head[1]!, values });
    } else if (pair !== null) sections.at(-1)?.values.set(pair[1]!, pair[2]!);
  }
  return sections.map(({ name, values }) => {
    // The type comes first and without its name.
    const key = { object: 'qom-type', chardev: 'backend', device: 'driver', numa: 'type' }[name];
    const type = key === undefined ? undefined : values.get(key);
    if (key !== undefined) values.delete(key);
    const pairs = [...values].map(([one, value]) => `${one}=${value.replaceAll(',', ',,')}`);
    const option = name === 'memory' ? 'm' : name;
    return [option, [...(type === undefined ? [] : [type]), ...pairs].join(',')];
  });
}

/**
 * `NAME,option=…` or `guest=NAME,option=…`; a comma in the name is written twice. QEMU
 * util/qemu-option.c.
 */
function guestName(value: string): string {
  return property(value, 'guest') ?? (/^(?:[^,]|,,)*/.exec(value)?.[0] ?? '').replaceAll(',,', ',');
}

/** The last one counts, as in QEMU. */
function property(value: string, name: string): string | undefined {
  const json = parsedJson(value);
  if (json !== undefined) return json[name] === undefined ? undefined : String(json[name]);
  const found = [...value.matchAll(new RegExp(`(?:^|,)${name}=((?:[^,]|,,)*)`, 'g'))];
  return found.at(-1)?.[1]?.replaceAll(',,', ',');
}

/** What kind of thing an option makes: `memory-backend-ram,id=…`, or as JSON. */
function typeOf(value: string, key: string): string {
  const json = parsedJson(value);
  if (json !== undefined) return String(json[key] ?? '');
  return property(value, key) ?? value.split(',')[0]!;
}

function parsedJson(value: string): Record<string, unknown> | undefined {
  if (!value.startsWith('{')) return undefined;
  try {
    return JSON.parse(value) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** `on`, which is what leaving `option` out means where `given` says so. */
function isOn(value: string, name: string, given: boolean): boolean {
  const text = property(value, name);
  if (text !== undefined) return /^(on|true|yes)$/.test(text);
  const words = value.split(',');
  return words.includes(name) || (given && !words.includes(`no${name}`));
}

/** A listening socket of an option; `undefined`: QEMU is the client there, or it is no socket. */
function socketOf(
  value: string,
  address: string | undefined,
  absolute: (path: string) => string,
): MonitorSocket | undefined {
  if (address === undefined || !isOn(value, 'server', false)) return undefined;
  return {
    address: address.startsWith('tcp:') ? address : absolute(address),
    waits: isOn(value, 'wait', true),
  };
}

function monitors(options: readonly Option[], absolute: (path: string) => string): MonitorSocket[] {
  const chardevs = new Map<string, MonitorSocket | undefined>();
  for (const [name, value] of options) {
    const id = property(value, 'id');
    if (name !== 'chardev' || typeOf(value, 'backend') !== 'socket' || id === undefined) continue;
    const port = property(value, 'port');
    const tcp = port === undefined ? undefined : `tcp:${property(value, 'host') ?? ''}:${port}`;
    chardevs.set(id, socketOf(value, property(value, 'path') ?? tcp, absolute));
  }
  const found: (MonitorSocket | undefined)[] = [];
  for (const [name, value] of options) {
    if (name === 'qmp' || name === 'qmp-pretty') {
      const path = /^unix:([^,]+)/.exec(value)?.[1];
      const tcp = /^(?:tcp|telnet):[^,]+/.exec(value)?.[0].replace(/^telnet/, 'tcp');
      if (value.startsWith('chardev:')) found.push(chardevs.get(value.slice(8)));
      else found.push(socketOf(value, path ?? tcp, absolute));
    } else if (name === 'mon' && property(value, 'mode') === 'control') {
      found.push(chardevs.get(property(value, 'chardev') ?? value.split(',')[0] ?? ''));
    }
  }
  return found.filter((socket) => socket !== undefined);
}

/**
 * `-m 512`, `-m 4G`, `-m size=2048,slots=…`: mebibytes without a suffix. QEMU qemu-options.hx,
 * `-m`.
 * @param known whether nothing else may say it
 */
function memorySize(values: readonly string[], known: boolean): bigint | undefined {
  const sizes = values.map((value) => /^(?:size=)?(\d+[kKmMgGtT]?)(?:,|$)/.exec(value)?.[1]);
  const last = sizes.filter((size) => size !== undefined).at(-1);
  if (last !== undefined) return sizeOf(/\d$/.test(last) ? `${last}M` : last);
  // A size in another form, or in a file that cannot be read.
  if (!known || values.some((value) => /(^|,)size=/.test(value))) return undefined;
  return 128n << 20n;
}

function sizeOf(value: string | undefined): bigint | undefined {
  const match = /^(\d+)([bBkKmMgGtT]?)$/.exec(value ?? '');
  if (match === null) return undefined;
  const shift = { b: 0n, k: 10n, m: 20n, '': 0n, g: 30n, t: 40n }[match[2]!.toLowerCase()]!;
  return BigInt(match[1]!) << shift;
}

/**
 * The parts of main memory: one, or one a NUMA node. QEMU hw/core/numa.c,
 * `numa_init_memdev_container`: they follow each other by the nodes' numbers.
 */
function blocksOf(
  memory: bigint | undefined,
  machine: string,
  objects: readonly string[],
  numa: readonly string[],
): MemoryBlock[] | undefined {
  if (memory === undefined) return undefined;
  const backends = new Map<string, bigint | undefined>();
  for (const value of objects) {
    const id = property(value, 'id');
    if (typeOf(value, 'qom-type').startsWith('memory-backend-') && id !== undefined)
      backends.set(id, sizeOf(property(value, 'size')));
  }
  const nodes = numa
    .filter((value) => typeOf(value, 'type') === 'node')
    .map((value, at) => ({
      number: Number(property(value, 'nodeid') ?? at),
      id: property(value, 'memdev'),
    }))
    .sort((a, b) => a.number - b.number);
  if (nodes.every(({ id }) => id === undefined))
    return [{ id: property(machine, 'memory-backend'), size: memory }];
  const blocks: MemoryBlock[] = [];
  for (const { id } of nodes) {
    if (id === undefined) continue;
    const size = backends.get(id);
    if (size === undefined) return undefined;
    blocks.push({ id, size });
  }
  const sum = blocks.reduce((bytes, { size }) => bytes + size, 0n);
  return sum === memory ? blocks : undefined;
}

/** What is written as JSON is left out. QEMU qapi/qom.json, `MemoryBackendProperties`. */
function sharedBackends(objects: readonly string[]): string[] {
  const ids: string[] = [];
  for (const value of objects) {
    if (!value.startsWith('memory-backend-')) continue;
    const id = property(value, 'id');
    if (id !== undefined && property(value, 'share') === 'on') ids.push(id);
  }
  return ids;
}

function machineType(value: string, known: boolean): 'pc' | 'q35' | undefined {
  const names = value
    .split(',')
    .filter((part) => part !== '' && (!part.includes('=') || part.startsWith('type=')));
  const name = names.at(-1);
  if (name === undefined) return known ? 'pc' : undefined;
  if (/q35/.test(name)) return 'q35';
  return /^(type=)?pc(-i440fx|$)/.test(name) ? 'pc' : undefined;
}
