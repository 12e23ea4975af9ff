import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VmiError } from '../../../lib/errors.js';
import type { UserRegisters } from '../../../lib/helpers/index.js';
import { descriptionOf, registerText } from '../../../lib/serve/gdb/description.js';
import { escapeBinary, frame, PACKET_SIZE, PacketReader } from '../../../lib/serve/gdb/packet.js';
import type { ProcessView } from '../../../lib/serve/gdb/process-view.js';
import { GdbServer, serve } from '../../../lib/serve/gdb/server.js';
import { Session } from '../../../lib/serve/gdb/session.js';

const saved = {
  rax: 0x1122334455667788n,
  orig_rax: 0xffffffffffffffffn,
  rip: 0x401000n,
  cs: 0x33n,
  eflags: 0x246n,
} as unknown as UserRegisters;
const area = {
  start: 0x1000n,
  end: 0x3000n,
  flags: 'rw-p',
  offset: 0n,
  name: '/bin/a\x1b[31m',
  object: undefined,
};

/** A process of two threads; one page is there. */
function fakeView(overrides: object = {}): ProcessView {
  return {
    pid: 0x50,
    threads: () => [0x50, 0x51],
    thread: (tid: number) => {
      if (tid !== 0x50 && tid !== 0x51) throw new VmiError('VMI_NO_TASK', `no task ${tid}`);
      return { comm: 'toy', state: 'S' };
    },
    registers: (tid: number) => (tid === 0x51 ? { why: 'it runs' } : { saved }),
    isCompat: () => false,
    read: (address: bigint, length: number) =>
      address >= 0x2000n && address < 0x3000n
        ? new Uint8Array(Math.min(length, Number(0x3000n - address))).fill(0xab)
        : new Uint8Array(),
    absent: (address: bigint) => ({
      address,
      state: address === 0x1000n ? 'untouched' : 'unmapped',
      area: address === 0x1000n ? area : undefined,
    }),
    areas: () => [area].values(),
    auxv: () => Uint8Array.from({ length: 64 }, (_, i) => i),
    exe: () => '/bin/a',
    ...overrides,
  } as unknown as ProcessView;
}

function session(view = fakeView()) {
  const logged: string[] = [];
  const made = new Session(view, (text) => logged.push(text));
  return { ask: (packet: string) => made.answer(packet).data, made, logged };
}
const rcmd = (line: string) => `qRcmd,${Buffer.from(line).toString('hex')}`;
const fromHex = (text: string | undefined) => Buffer.from(text ?? '', 'hex').toString();

describe('packets', () => {
  it('come whole out of any pieces', () => {
    const packets = ['m1000,4', '', 'qSupported:a;b', 'x'.repeat(PACKET_SIZE)];
    const text = packets.map((packet) => `+${frame(packet)}`).join('');
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5000 })), (sizes) => {
        const reader = new PacketReader();
        const heard: unknown[] = [];
        let at = 0;
        for (const size of [...sizes, text.length]) {
          heard.push(...reader.push(text.slice(at, at + size)));
          at += size;
        }
        expect(heard).toEqual(packets.map((packet) => ({ packet })));
      }),
    );
  });

  it('that are broken are told apart, and an interrupt is none', () => {
    const reader = new PacketReader();
    expect(reader.push('noise$g#00\x03$g#67-')).toEqual(['broken', 'interrupt', { packet: 'g' }]);
  });

  it('never end without a limit', () => {
    const reader = new PacketReader();
    expect(() => {
      for (let i = 0; i < 100; i++) reader.push(`$${'a'.repeat(1000)}`.slice(i === 0 ? 0 : 1));
    }).toThrow(RangeError);
  });

  it('escape what means something in a frame', () => {
    expect(escapeBinary(Buffer.from('a#$}*b'))).toBe('a}\x03}\x04}]}\x0ab');
  });
});

describe('registers', () => {
  it('are in the order of the description, unknown ones as x', () => {
    const { registers, xml } = descriptionOf(false);
    expect(registers[0]!.name).toBe('rax');
    expect(registerText(registers[0]!, saved)).toBe('8877665544332211');
    const byName = new Map(registers.map((one) => [one.name, one]));
    expect(registerText(byName.get('cs')!, saved)).toBe('33000000');
    expect(registerText(byName.get('st0')!, saved)).toBe('x'.repeat(20));
    expect(registerText(byName.get('rip')!, undefined)).toBe('x'.repeat(16));
    expect(xml).toContain('<architecture>i386:x86-64</architecture>');
  });

  it('of a 32-bit program are the lower halves', () => {
    const byName = new Map(descriptionOf(true).registers.map((one) => [one.name, one]));
    expect(registerText(byName.get('eax')!, saved)).toBe('88776655');
    expect(registerText(byName.get('orig_eax')!, saved)).toBe('ffffffff');
    expect(registerText(byName.get('eflags')!, saved)).toBe('46020000');
  });
});

describe('a session', () => {
  it('names threads, with and without processes', () => {
    const { ask } = session();
    expect(ask('qfThreadInfo')).toBe('m50,51');
    expect(ask('qsThreadInfo')).toBe('l');
    ask('qSupported:multiprocess+;swbreak+');
    expect(ask('?')).toBe('T00thread:p50.50;');
    expect(ask('qfThreadInfo')).toBe('mp50.50,p50.51');
    expect(ask('Hgp50.51')).toBe('OK');
    expect(ask('qC')).toBe('QCp50.51');
    expect(fromHex(ask('qThreadExtraInfo,p50.51'))).toBe('toy (S), no registers: it runs');
    expect(ask('g')).toMatch(/^x+$/);
    expect(ask('Hgp50.77')).toBe('E03');
    expect(ask('Hgp99.50')).toBe('E03');
  });

  it('reads what is there, and says what is not', () => {
    const { ask, logged } = session();
    expect(ask('m2ffe,4')).toBe('abab');
    expect(ask('m1000,4')).toBe('E14');
    expect(ask('m1004,4')).toBe('E14');
    expect(logged).toEqual([expect.stringMatching(/0x1000 is not in memory: a page of .* never/)]);
    expect(fromHex(ask(rcmd('absent')))).toContain('/bin/a\\x1b[31m');
    expect(fromHex(ask(rcmd('why 0x9000')))).toMatch(/nothing there/);
    expect(fromHex(ask(rcmd('why')))).toMatch(/Expected/);
    expect(fromHex(ask(rcmd('maps')))).toMatch(/^1000-3000 rw-p 00000000 /);
    expect(fromHex(ask(rcmd('threads')))).toMatch(/81 toy: it runs/);
    expect(fromHex(ask(rcmd('what')))).toMatch(/monitor absent/);
  });

  it('gives long answers in parts', () => {
    const { ask } = session();
    const whole = ask('qXfer:auxv:read::0,1000')!;
    expect(whole[0]).toBe('l');
    expect(ask('qXfer:auxv:read::0,10')).toBe(`m${whole.slice(1, 17)}`);
    expect(ask('qXfer:auxv:read::1000,10')).toBe('l');
    expect(ask('qXfer:features:read:target.xml:0,ffff')).toMatch(/^l<\?xml.*<\/target>$/);
    expect(ask('qXfer:exec-file:read:50:0,ffff')).toBe('l/bin/a');
  });

  it('refuses what would change the guest, and says so', () => {
    const { ask, logged } = session();
    const all = ['M2000,1:00', 'X2000,1:a', 'G00', 'P0=00', 'c', 's', 'C05', 'S05', 'Z0,2000,1'];
    for (const packet of [...all, 'vCont;c', 'vKill;50', 'vRun;', 'vAttach;1'])
      expect(ask(packet), packet).toMatch(/^E\.read-only/);
    expect(logged.length).toBe(all.length + 4);
    expect(ask('X2000,0:')).toBe('');
  });

  it('ends for what ends it only', () => {
    const { made } = session();
    expect(made.answer('D;50')).toEqual({ data: 'OK', end: true });
    expect(made.answer('k')).toEqual({ end: true });
  });

  it('answers anything with a packet that can be sent', () => {
    const { made } = session();
    const starts = ['', 'm', 'q', 'qXfer:', 'Hg', 'T', 'p', 'v', 'qRcmd,', 'qThreadExtraInfo,'];
    const packet = fc
      .tuple(fc.constantFrom(...starts), fc.string({ maxLength: 40 }))
      .map(([start, rest]) => start + rest);
    fc.assert(
      fc.property(packet, (text) => {
        const { data = '' } = made.answer(text);
        expect(data.length).toBeLessThanOrEqual(PACKET_SIZE);
        expect(data).not.toMatch(/[#$]/);
      }),
    );
  });

  it('tells a process that has ended, and ends with the guest', () => {
    let error = new VmiError('VMI_NO_TASK', 'process 80 has ended');
    const view = fakeView({
      read: () => {
        throw error;
      },
    });
    const { ask, logged } = session(view);
    expect(ask('m2000,4')).toBe('E03');
    expect(logged).toEqual(['process 80 has ended']);
    error = new VmiError('VMI_CLOSED', 'gone');
    expect(() => ask('m2000,4')).toThrow('gone');
  });
});

describe('a server', () => {
  it('talks in frames, with acknowledgements until they are left out', async () => {
    const stream = new PassThrough();
    const said: string[] = [];
    const { write } = stream;
    stream.write = (chunk: Buffer) => {
      said.push(chunk.toString('latin1'));
      return true;
    };
    const feed = (text: string) => write.call(stream, Buffer.from(text), 'utf8');
    const done = serve(stream, fakeView(), { log: () => {} });
    feed(
      `+${frame('QStartNoAckMode')}${frame('QStartNoAckMode')}+$g#00${frame('qC')}${frame('D')}`,
    );
    await done;
    expect(said).toEqual(['+', frame('OK'), '-', frame('QC50'), frame('OK')]);
  });

  it('lets go whoever sends what gdb would not', async () => {
    const stream = new PassThrough();
    const logged: string[] = [];
    stream.write(`$${'a'.repeat(PACKET_SIZE + 2)}`);
    await serve(stream, fakeView(), { log: (text) => logged.push(text) });
    expect(logged).toEqual([expect.stringMatching(/let go: a packet of more than/)]);
  });

  it('listens where only this user comes in', async () => {
    const server = new GdbServer(fakeView(), { log: () => {} });
    await server.listen('private');
    expect(server.address).toMatch(/vmi-gdb-.*\/socket$/);
    server.close();
    await server.ended;
    const other = new GdbServer(fakeView(), { log: () => {} });
    await other.listen({ host: '127.0.0.1', port: 0 });
    expect(other.address).toMatch(/^127\.0\.0\.1:\d+$/);
    other.close();
  });
});
