// @ts-check
/**
 * Every way in which listening to a domain of Xen can end, and what is left of the guest after it.
 */
import { quoted } from './domain.mjs';

/**
 * @typedef {object} Ending
 * @property {string} name
 * @property {string} [end] what listen.mjs is told; `hold` when left out
 * @property {string} [act] shell script that runs while it listens: $NODE, $HOST and $GUARD are its
 *   processes, $ID is the domain's number, `hears` waits until it has ended, `runs` whether it does
 * @property {RegExp} [says] what the listener says of it
 * @property {boolean} [gone] the domain is gone afterwards
 * @property {number} [code] exit code of the listener
 */

/** Seconds that a listener may take to hear the first write, and to end. */
const PATIENCE = 60;
const KILLED = 137;

/** @type {Ending[]} */
export const ENDINGS = [
  { name: 'break', end: 'break', says: /"ended"(?!.*"error")/ },
  { name: 'throw', end: 'throw', says: /thrown by the loop/ },
  { name: 'return()', end: 'return', says: /"ended"(?!.*"error")/ },
  { name: 'guest.close()', end: 'close', says: /"ended"(?!.*"error")/ },
  { name: 'AbortSignal', end: 'abort', says: /VMI_ABORTED/ },
  { name: 'process.exit()', end: 'exit', code: 7 },
  { name: 'the event loop blocked for 8 s', end: 'spin 8', says: /"ended"(?!.*"error")/ },
  { name: 'SIGINT', act: 'kill -INT $NODE', code: 130 },
  { name: 'SIGTERM', act: 'kill -TERM $NODE', code: 143 },
  { name: 'SIGHUP', act: 'kill -HUP $NODE', code: 129 },
  { name: 'SIGKILL', act: 'kill -KILL $NODE', code: KILLED },
  {
    name: 'SIGSTOP for 8 s, then on',
    act: 'kill -STOP $NODE; sleep 1; moves || echo FROZEN; sleep 7; moves || echo FROZEN; kill -CONT $NODE; sleep 2; runs || echo ENDED; kill -INT $NODE',
    code: 130,
  },
  {
    name: 'SIGSTOP, then SIGKILL',
    act: 'kill -STOP $NODE; sleep 1; kill -KILL $NODE',
    code: KILLED,
  },
  { name: 'its process: SIGTERM', act: 'kill -TERM $HOST', says: /ended by SIGTERM/ },
  { name: 'its process: SIGINT', act: 'kill -INT $HOST', says: /ended by SIGINT/ },
  { name: 'its process: SIGHUP', act: 'kill -HUP $HOST', says: /ended by SIGHUP/ },
  { name: 'its process: SIGKILL', act: 'kill -KILL $HOST', says: /ended by SIGKILL/ },
  {
    name: 'its process: SIGSTOP',
    act: 'kill -STOP $HOST; sleep 3; moves || echo FROZEN',
    says: /VMI_BUSY.*its process was stopped/,
  },
  {
    name: 'its process: SIGSTOP for 4 s, then on',
    act: 'kill -STOP $HOST; sleep 4; moves || echo FROZEN; kill -CONT $HOST',
    says: /VMI_BUSY.*its process was stopped/,
  },
  {
    name: 'both: SIGKILL',
    act: 'kill -KILL $HOST $NODE',
    code: KILLED,
  },
  {
    name: 'both: SIGSTOP',
    act: 'kill -STOP $NODE $HOST; sleep 3; moves || echo FROZEN; kill -KILL $NODE; kill -CONT $HOST',
    code: KILLED,
  },
  {
    name: 'its guard: SIGKILL',
    act: 'kill -KILL $GUARD; sleep 3; moves || echo FROZEN; runs || echo ENDED; kill -INT $NODE',
    code: 130,
  },
  {
    name: 'its process and its guard: SIGKILL',
    act: 'kill -KILL $GUARD $HOST',
    says: /ended by SIGKILL/,
  },
  {
    name: 'a second listener',
    act: `node /lab/listen.mjs "$NAME" break 2> /tmp/second.err | tee /tmp/second | grep -q VMI_EVENTS_TAKEN || echo UNTOLD; vmi doctor --fix | grep -q 'who may listen: libvmi_host' || echo UNTOLD; moves || echo FROZEN; runs || echo ENDED; kill -INT $NODE`,
    code: 130,
  },
  {
    name: 'all three at once: SIGKILL, then vmi doctor --fix',
    act: `kill -KILL $GUARD $HOST $NODE; sleep 1; vmi doctor | grep -A1 'events of' ; vmi doctor --fix | grep -q 'turned off' || echo UNTOLD`,
    code: KILLED,
  },
  {
    name: 'xl destroy',
    act: 'xl destroy $ID',
    says: /VMI_CLOSED.*the guest has ended/,
    gone: true,
  },
];

/**
 * Lets a listener listen and end, and looks at the guest afterwards.
 *
 * @param {import('./domain.mjs').XenDomain} domain with something in it that switches
 * @param {Ending} ending
 * @returns {Promise<{ verdict: string, said: string[], seconds: number }>} verdict: `runs`, `gone`,
 *   or what is wrong
 */
export async function endOne(domain, { name, end = 'hold', act = '', says, gone, code = 0 }) {
  const start = performance.now();
  const { machine } = domain;
  const script = `
ID=${domain.id} NAME=${quoted(domain.name)}
runs() { kill -0 $NODE 2> /dev/null; }
time_of() { xl list $ID 2> /dev/null | awk 'NR == 2 { print $NF }'; }
moves() { before=$(time_of); sleep 2; [ "$before" != "$(time_of)" ]; }
node /lab/listen.mjs "$NAME" ${end} > /tmp/listener 2> /tmp/listener.err &
NODE=$!
for try in $(seq ${PATIENCE * 5}); do grep -q listening /tmp/listener && break; runs || break; sleep 0.2; done
number() { sed -n "s/.*\\"$1\\":\\([0-9]*\\).*/\\1/p" /tmp/listener | head -1; }
HOST=$(number libvmi_host) GUARD=$(number libvmi_guard)
grep -q listening /tmp/listener && [ -n "$HOST" ] && [ -n "$GUARD" ] || echo DEAF
sleep 2
${act}
for try in $(seq ${PATIENCE * 5}); do runs || break; sleep 0.2; done
runs && { echo HANGS; kill -KILL $NODE; }
wait $NODE
echo "code $?"
cat /tmp/listener /tmp/listener.err
for try in $(seq 25); do
  grep -l -E '^Name:.libvmi_(host|guard)' /proc/[0-9]*/status > /tmp/left 2> /dev/null || break
  sleep 0.2
done
for status in $(cat /tmp/left); do
  grep -q '^State:.Z' $status 2> /dev/null || { echo LEFT; cat $status 2> /dev/null | head -3; }
done
echo "monitor $(/project/build/Release/libvmi_host --monitor $ID)"
xl list $ID 2>&1 | tail -1
`;
  const { out, err } = await machine.run(script, { seconds: 3 * PATIENCE + 60, check: false });
  const said = `${out}${err}`
    .split('\n')
    .filter((line) => line !== '' && !/"listening"/.test(line));
  const wrong = /^(FROZEN|ENDED|DEAF|HANGS|LEFT|UNTOLD)$/m.exec(out)?.[0];
  /** @returns {Promise<string>} */
  const verdict = async () => {
    if (wrong !== undefined) return wrong;
    if (!out.includes(`code ${code}\n`))
      return `it ended with ${/^code .*$/m.exec(out)?.[0]}, not ${code}`;
    if (says !== undefined && !says.test(out)) return `it did not say ${says}`;
    if (gone)
      return /does not exist|invalid domain/i.test(out) ? 'gone' : 'the domain is still there';
    if (!out.includes('monitor off\n')) return 'its events are still on';
    return (await domain.answers()) ? 'runs' : 'FROZEN';
  };
  return {
    verdict: await verdict().catch((error) => `${name}: ${error.message}`),
    said: said.map((line) => line.slice(0, 600)),
    seconds: (performance.now() - start) / 1000,
  };
}
