// Stock oslo.messaging (Debian's python3-oslo.messaging) as the other end: a script that talks JSON lines.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export type Line = Readonly<Record<string, unknown>>;

const PATIENCE_MS = 30_000;

export class PythonPeer implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Line[] = [];
  readonly #waiters = new Set<() => void>();
  #stderr = '';
  #nextId = 0;

  private constructor(script: string, args: readonly string[]) {
    const path = fileURLToPath(new URL(script, import.meta.url));
    this.#child = spawn('/usr/bin/python3', ['-W', 'ignore', path, ...args], {
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
    });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#lines.push(JSON.parse(line) as Line);
      for (const wake of this.#waiters) wake();
    });
    this.#child.on('close', () => {
      for (const wake of this.#waiters) wake();
    });
  }

  static async start(script: string, ...args: readonly string[]): Promise<PythonPeer> {
    const peer = new PythonPeer(script, args);
    await peer.line((line) => line['event'] === 'ready');
    return peer;
  }

  get lines(): readonly Line[] {
    return this.#lines;
  }

  /** The first line that matches, also one of before. */
  async line(matches: (line: Line) => boolean, patienceMs = PATIENCE_MS): Promise<Line> {
    const giveUpAt = Date.now() + patienceMs;
    for (;;) {
      const found = this.#lines.find(matches);
      if (found) return found;
      if (this.#child.exitCode !== null || Date.now() > giveUpAt) {
        throw new Error(`no such line from python: ${JSON.stringify(this.#lines)}\n${this.#stderr}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        const wake = (): void => {
          clearTimeout(timer);
          this.#waiters.delete(wake);
          resolve();
        };
        this.#waiters.add(wake);
      });
    }
  }

  /** For rpc_client.py: one command, its answer. */
  async ask(command: Line): Promise<Line> {
    this.#nextId += 1;
    const id = this.#nextId;
    this.#child.stdin.write(`${JSON.stringify({ ...command, id })}\n`);
    return await this.line((line) => line['id'] === id, 70_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }
}
