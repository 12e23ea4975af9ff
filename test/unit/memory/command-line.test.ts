import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readCommand } from '../../../lib/memory/qemu/command-line.js';

const MIB = 1n << 20n;
const read = (line: string, files: Record<string, string> = {}) =>
  readCommand(['qemu-system-x86_64', ...line.split(' ')], '/home/vm', (path) => files[path]);

describe('the command line of a QEMU', () => {
  it.each([
    ['-m 512', 512n],
    ['-m 4G', 4096n],
    ['-m size=2048,slots=2,maxmem=8G', 2048n],
    ['-m 256M -m slots=2,maxmem=8G', 256n],
    ['-m 256M -m 512M', 512n],
    ['-M q35', 128n],
  ])('%s: %d MiB', (line, mebibytes) => {
    expect(read(line).memory).toBe(mebibytes * MIB);
    expect(read(line).blocks).toEqual([{ id: undefined, size: mebibytes * MIB }]);
  });

  it('does not tell a size that it does not understand, or that a file may say', () => {
    expect(read('-m size=lots').memory).toBeUndefined();
    expect(read('-readconfig gone')).toMatchObject({
      memory: undefined,
      machine: undefined,
      unread: ['gone'],
    });
  });

  it.each([
    ['-M pc', 'pc'],
    ['-machine type=q35,accel=kvm', 'q35'],
    ['-machine accel=kvm', 'pc'],
    ['-machine pc-i440fx-7.2 -machine usb=off', 'pc'],
    ['-machine microvm', undefined],
  ])('%s is machine %s', (line, machine) => {
    expect(read(line).machine).toBe(machine);
  });

  it('takes only sockets that QEMU listens on, and knows which it waits at', () => {
    const line =
      '-qmp unix:a,server=on,wait=off -qmp unix:/b,server,nowait -qmp unix:/c,server -qmp unix:/client ' +
      '-qmp-pretty tcp:127.0.0.1:4444,server=on,wait=on -chardev socket,id=d,path=/d,server=on,wait=off ' +
      '-mon chardev=d,mode=control -chardev socket,id=e,path=/e,server=on -mon e,mode=readline';
    expect(read(line).monitors).toEqual([
      { address: '/home/vm/a', waits: false },
      { address: '/b', waits: false },
      { address: '/c', waits: true },
      { address: 'tcp:127.0.0.1:4444', waits: true },
      { address: '/d', waits: false },
    ]);
  });

  it('reads configuration files', () => {
    const file = `# made by -writeconfig
[machine]
  type = "q35"
  max-ram-below-4g = "1G"
[memory]
  size = "1024M"
[object "ram0"]
  qom-type = "memory-backend-memfd"
  size = "1G"
  share = "on"
[name]
  guest = "web, one"
[chardev "c"]
  backend = "socket"
  path = "/run/c"
  server = "on"
  wait = "off"
[mon "m"]
  chardev = "c"
  mode = "control"
`;
    expect(read('-readconfig vm.cfg', { '/home/vm/vm.cfg': file })).toMatchObject({
      name: 'web, one',
      machine: 'q35',
      lowRam: 1024n * MIB,
      memory: 1024n * MIB,
      sharedBackends: ['ram0'],
      monitors: [{ address: '/run/c', waits: false }],
      unread: [],
    });
  });

  it('names the blocks of NUMA nodes in the order in which they follow each other', () => {
    const objects =
      '-m 768 -object memory-backend-ram,id=a,size=512M -object {"qom-type":"memory-backend-ram","id":"b","size":268435456}';
    expect(
      read(`${objects} -numa node,nodeid=1,memdev=a -numa node,nodeid=0,memdev=b`),
    ).toMatchObject({
      blocks: [
        { id: 'b', size: 256n * MIB },
        { id: 'a', size: 512n * MIB },
      ],
      hasMemoryDevices: false,
    });
    expect(read(`${objects} -numa node,memdev=a`).blocks).toBeUndefined();
    expect(read(`${objects} -device pc-dimm,memdev=b`).hasMemoryDevices).toBe(true);
    expect(read(`${objects} -device {"driver":"virtio-mem-pci"}`).hasMemoryDevices).toBe(true);
  });

  it.each(['sev-guest', 'sev-snp-guest', 'tdx-guest'])('says that %s encrypts memory', (type) => {
    expect(read(`-object ${type},id=x`).encrypted).toBe(type);
    expect(read(`-object {"qom-type":"${type}","id":"x"}`).encrypted).toBe(type);
    expect(read('-object rng-random,id=x').encrypted).toBeUndefined();
  });

  it('ends whatever it is given', () => {
    const words = fc.oneof(
      fc.constantFrom('-m', '-M', '-qmp', '-object', '-numa', '-readconfig', '-name', '-mon', '{'),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 12 }), fc.string(), (args, file) => {
        const { memory, blocks } = readCommand(['qemu', ...args], '/', () => file);
        const sum = blocks?.reduce((bytes, { size }) => bytes + size, 0n);
        if (sum !== undefined) expect(sum).toBe(memory);
      }),
    );
  });
});
