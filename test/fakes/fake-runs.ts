// Programs that run in the fake server's instances: chpasswd and passwd, of a guest whose only user is root.
import { randomUUID } from 'node:crypto';
import type { WebSocket } from 'ws';

const STREAMS = ['0', '1', '2', 'control'] as const;
type Stream = (typeof STREAMS)[number];

export interface FakeRun {
  /** Stream → secret. */
  readonly fds: Readonly<Record<string, string>>;
  readonly exitCode: Promise<number>;
}

interface Running {
  readonly input: Promise<string>;
  readonly errors: WebSocket;
}

export class FakeRuns {
  /** What was set, newest last. */
  readonly passwords: string[] = [];
  readonly #programs: readonly string[];
  readonly #waiting = new Map<string, (socket: WebSocket) => void>();

  constructor(programs: readonly string[]) {
    this.#programs = programs;
  }

  start(command: readonly string[]): FakeRun {
    const fds = Object.fromEntries(STREAMS.map((stream) => [stream, randomUUID()]));
    const connected = STREAMS.map(async (stream): Promise<[Stream, WebSocket]> => {
      const socket = await new Promise<WebSocket>((resolve) => this.#waiting.set(fds[stream] ?? '', resolve));
      return [stream, socket];
    });
    return { fds, exitCode: this.#run(command, connected) };
  }

  connect(path: string, socket: WebSocket): void {
    const secret = new URL(path, 'http://fake').searchParams.get('secret') ?? '';
    const connected = this.#waiting.get(secret);
    this.#waiting.delete(secret);
    if (connected) connected(socket);
    else socket.close();
  }

  async #run(command: readonly string[], connected: readonly Promise<[Stream, WebSocket]>[]): Promise<number> {
    const input = connected[0]?.then(([, socket]) => inputOf(socket)) ?? Promise.resolve('');
    const sockets = Object.fromEntries(await Promise.all(connected)) as Record<Stream, WebSocket>;
    const code = await this.#program(command, { input, errors: sockets['2'] });
    for (const stream of ['1', '2'] as const) sockets[stream].send('', { binary: false });
    return code;
  }

  async #program([program = '', user]: readonly string[], { input, errors }: Running): Promise<number> {
    const text = await input;
    if (!this.#programs.includes(program)) return 127;
    const login = program === 'chpasswd' ? /^([^:]+):(.+)\n$/.exec(text) : /^()(.+)\n\2\n$/.exec(text);
    if (login === null || (user ?? login[1]) !== 'root') {
      errors.send(Buffer.from(`${program}: refused\n`));
      return 1;
    }
    this.passwords.push(login[2] ?? '');
    return 0;
  }
}

function inputOf(socket: WebSocket): Promise<string> {
  let text = '';
  return new Promise((resolve) => {
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (isBinary) text += String(data);
      else resolve(text);
    });
    socket.once('close', () => resolve(text));
  });
}
