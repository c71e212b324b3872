// Our own client, as a process, against a daemon of a test.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Ended, ended } from '../engine/stock-client.ts';

const LIGHTER = join(import.meta.dirname, '../../../bin/lighter');

export class OwnClient {
  readonly work: string;
  readonly #socketPath: string;

  private constructor(socketPath: string, work: string) {
    this.#socketPath = socketPath;
    this.work = work;
  }

  static async for(socketPath: string, work: string): Promise<OwnClient> {
    await mkdir(work, { recursive: true });
    return new OwnClient(socketPath, work);
  }

  spawn(...args: readonly string[]): ChildProcess {
    return this.command(LIGHTER, ...args);
  }

  /** Another program that runs `lighter`, whose path is $LIGHTER. */
  command(program: string, ...args: readonly string[]): ChildProcess {
    const env = {
      PATH: process.env['PATH'] ?? '',
      HOME: this.work,
      LIGHTER_SOCKET: this.#socketPath,
      LIGHTER_CONF: join(this.work, 'lighter-conf'),
      LIGHTER,
      TERM: 'xterm',
    };
    return spawn(program, args, { env, cwd: this.work });
  }

  /** With this input, to the end; never rejects for an exit code. */
  async ends(args: readonly string[], input: Uint8Array | string = ''): Promise<Ended> {
    return ended(this.spawn(...args), input);
  }

  /** Standard output; rejects with what it complained about. */
  async run(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ends(args);
    if (code !== 0) throw new Error(`lighter ${args.join(' ')}: ${stderr}`);
    return stdout.toString();
  }
}
