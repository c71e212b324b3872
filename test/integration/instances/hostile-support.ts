// Commands as root of a container that means no good, with the host's Python for system calls that busybox has no applet for.
import { readFile } from 'node:fs/promises';
import type { TestDaemon } from './daemon-support.ts';

export interface Outcome {
  readonly code: number;
  readonly output: string;
}

const USR = '/opt/usr';

/** The host's /usr, which holds nothing that is secret. */
export const TOOLS = { type: 'disk', source: '/usr', path: USR, readonly: 'true' };

const LIBRARY = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
const LOADER = process.arch === 'arm64' ? 'ld-linux-aarch64.so.1' : 'ld-linux-x86-64.so.2';

/** A command that runs Python in a container with TOOLS. */
export function python(script: string): readonly string[] {
  const libraries = `${USR}/lib/${LIBRARY}`;
  const loader = [`${libraries}/${LOADER}`, '--library-path', libraries];
  return ['env', `PYTHONHOME=${USR}`, ...loader, `${USR}/bin/python3`, '-S', '-c', script];
}

export class HostileGuest {
  readonly #daemon: TestDaemon;
  readonly name: string;

  constructor(daemon: TestDaemon, name: string) {
    this.#daemon = daemon;
    this.name = name;
  }

  sh(script: string): Promise<Outcome> {
    return this.exec(['sh', '-c', script]);
  }

  async exec(command: readonly string[], more: object = {}): Promise<Outcome> {
    const body = { command, 'record-output': true, ...more };
    const { metadata } = await this.#daemon.operate('POST', `/1.0/instances/${this.name}/exec`, body);
    const { return: code, output } = metadata.metadata as { return: number; output: Record<string, string> };
    const texts = await Promise.all(
      Object.values(output).map(async (url) => (await this.#daemon.call('GET', url)).text),
    );
    return { code, output: texts.join('') };
  }
}

/** Settings of the whole host that a container could want to change. */
const SETTINGS = [
  'kernel/core_pattern',
  'kernel/hostname',
  'kernel/domainname',
  'kernel/sysrq',
  'kernel/panic',
  'kernel/modprobe',
  'kernel/randomize_va_space',
  'kernel/printk',
  'fs/file-max',
  'vm/overcommit_memory',
  'vm/drop_caches',
  'net/ipv4/ip_forward',
];

export async function hostSettings(): Promise<Readonly<Record<string, string>>> {
  const read = async (name: string) => [name, await readFile(`/proc/sys/${name}`, 'utf8').catch(() => '')] as const;
  return Object.fromEntries(await Promise.all(SETTINGS.map(read)));
}
