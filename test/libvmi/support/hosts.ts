import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Processes of libvmi that a process has started and that still run. */
export function hostsOf(pid: number): number[] {
  return childrenOf(pid, 'libvmi_host');
}

/** Guards that a process of libvmi has started and that still run. */
export function guardsOf(host: number): number[] {
  return childrenOf(host, 'libvmi_guard');
}

function childrenOf(pid: number, program: string): number[] {
  const children: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8');
      if (!status.startsWith(`Name:\t${program}\n`) || /^State:\tZ/m.test(status)) continue;
      if (Number(/^PPid:\t(\d+)$/m.exec(status)?.[1]) === pid) children.push(Number(name));
    } catch {
      // It ended meanwhile.
    }
  }
  return children;
}

/** Whether a process is there and no zombie. */
export function runs(pid: number): boolean {
  try {
    return !/^State:\t[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** What a process has open, by number. */
export function openFiles(pid: number | 'self'): Map<number, string> {
  const open = new Map<number, string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      open.set(Number(fd), readlinkSync(`/proc/${pid}/fd/${fd}`));
    } catch {
      // The folder itself, closed by now.
    }
  }
  return open;
}
