// The stock `lxc` client against a daemon of a test.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestDaemon } from '../instances/daemon-support.ts';

export interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export class StockClient {
  readonly work: string;
  readonly #daemon: TestDaemon;

  private constructor(daemon: TestDaemon) {
    this.#daemon = daemon;
    this.work = join(daemon.root, 'work');
  }

  static async for(daemon: TestDaemon): Promise<StockClient> {
    const client = new StockClient(daemon);
    await mkdir(join(client.work, 'conf'), { recursive: true });
    // Without a file it greets, on standard error.
    await writeFile(join(client.work, 'conf/config.yml'), 'default-remote: local\n');
    return client;
  }

  /** Its standard streams are pipes. */
  spawn(...args: readonly string[]): ChildProcess {
    return this.command('lxc', ...args);
  }

  /** Another program that runs `lxc`. */
  command(program: string, ...args: readonly string[]): ChildProcess {
    const { root } = this.#daemon;
    const env = { PATH: process.env['PATH'] ?? '', HOME: this.work, LXD_DIR: root, LXD_CONF: join(this.work, 'conf') };
    return spawn(program, args, { env: { ...env, TERM: 'xterm' }, cwd: this.work });
  }

  /** With this input, to the end; never rejects for an exit code. */
  async ends(args: readonly string[], input: Uint8Array | string = ''): Promise<Ended> {
    return ended(this.spawn(...args), input);
  }

  /** Standard output; rejects with what it complained about. */
  async run(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ends(args);
    if (code !== 0) throw new Error(`lxc ${args.join(' ')}: ${stderr}`);
    return stdout.toString();
  }
}

/** `input` null: standard input stays open until the end. */
export async function ended(child: ChildProcess, input: Uint8Array | string | null = ''): Promise<Ended> {
  const output: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => errors.push(chunk));
  child.stdin?.on('error', () => undefined);
  if (input !== null) child.stdin?.end(input);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return { code, stdout: Buffer.concat(output), stderr: Buffer.concat(errors).toString() };
}
