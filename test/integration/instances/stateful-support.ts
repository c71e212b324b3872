// What a guest does whose state is kept: it counts in memory and writes the count to a file that it holds open, listens on TCP, and talks to
// somebody outside.
import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { criuPath } from '../criu.ts';
import type { TestDaemon } from './daemon-support.ts';

const PORT = 7000;
const WORK = [
  'exec 3>>/root/count; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.1; done',
  `exec nc -ll -p ${PORT} -e cat`,
];

const limit = () => AbortSignal.timeout(20_000 * timeFactor());

export class StatefulGuest {
  readonly #daemon: TestDaemon;
  readonly name: string;

  constructor(daemon: TestDaemon, name: string) {
    this.#daemon = daemon;
    this.name = name;
  }

  /** Background work, of nobody's session. */
  async begin(): Promise<void> {
    for (const work of WORK) await this.inside(`setsid sh -c '${work}' </dev/null >/dev/null 2>&1 &`);
    await poll(async () => ((await this.counts()).length > 3 ? true : undefined), 20, limit());
  }

  inside(script: string) {
    const command = ['sh', '-c', script];
    return this.#daemon.operate('POST', `/1.0/instances/${this.name}/exec`, { command });
  }

  async read(path: string): Promise<string | undefined> {
    const { pid } = await this.#daemon.state(this.name);
    return readFile(`/proc/${pid}/root${path}`, 'utf8').catch(() => undefined);
  }

  async counts(): Promise<readonly number[]> {
    const text = (await this.read('/root/count')) ?? '';
    return text.split('\n').filter(Boolean).map(Number);
  }

  /** Waits for more counts; all that there are then. */
  async countsLater(): Promise<readonly number[]> {
    const before = (await this.counts()).length;
    return poll(
      async () => {
        const now = await this.counts();
        return now.length > before + 2 ? now : undefined;
      },
      20,
      limit(),
    );
  }

  async address(): Promise<string> {
    const find = async () => {
      const { network } = await this.#daemon.state(this.name);
      const addresses = (network?.eth0?.addresses ?? []) as { family: string; address: string }[];
      return addresses.find(({ family }) => family === 'inet')?.address;
    };
    return poll(find, 50, limit());
  }

  async connect(): Promise<Echo> {
    const socket = connect({ host: await this.address(), port: PORT });
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new Echo(socket);
  }

  state(change: object) {
    return this.#daemon.operate('PUT', `/1.0/instances/${this.name}/state`, change);
  }

  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into it as clients do
  async record(): Promise<any> {
    return (await this.#daemon.call('GET', `/1.0/instances/${this.name}`)).metadata;
  }
}

/** A connection whose other end gives back what it is told. */
export class Echo implements Disposable {
  readonly #socket: Socket;
  #heard = '';

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#heard += chunk.toString();
    });
    socket.on('error', () => undefined);
  }

  say(words: string): void {
    this.#socket.write(words);
  }

  async hears(words: string): Promise<void> {
    await poll(async () => (this.#heard.endsWith(words) ? true : undefined), 20, limit());
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

/** One after the other, without a gap: the process was never begun anew. */
export function isOneCount(counts: readonly number[]): boolean {
  return counts.every((count, index) => count === index + 1);
}

export async function useCriu(daemon: TestDaemon): Promise<void> {
  await daemon.call('PATCH', '/1.0', { config: { 'lighter.criu.path': criuPath } });
}
