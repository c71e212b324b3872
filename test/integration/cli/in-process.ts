// Our client without a process of its own, for what needs no real terminal.
import { runCli } from '#src/cli/program.ts';
import { FakeTerminal } from '#test/fakes/fake-terminal.ts';
import type { TestDaemon } from '../instances/daemon-support.ts';

export interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export class InProcess {
  readonly #socketPath: string;
  readonly #configDirectory: string;

  constructor(daemon: TestDaemon) {
    this.#socketPath = daemon.socketPath;
    this.#configDirectory = `${daemon.root}/own-conf`;
  }

  /** `input` undefined: standard input is a terminal. */
  async ends(args: readonly string[], input?: string, edit?: (file: string) => Promise<void>): Promise<Said> {
    const terminal = new FakeTerminal({
      socketPath: this.#socketPath,
      configDirectory: this.#configDirectory,
      input,
      signal: AbortSignal.timeout(60_000),
    });
    if (edit) terminal.edits.push(edit);
    const code = await runCli(args, terminal);
    return { code, out: terminal.output, err: terminal.errors };
  }

  /** Standard output; rejects with what it complained about. */
  async run(...args: readonly string[]): Promise<string> {
    return this.given(undefined, ...args);
  }

  async given(input: string | undefined, ...args: readonly string[]): Promise<string> {
    const { code, out, err } = await this.ends(args, input);
    if (code !== 0) throw new Error(`lighter ${args.join(' ')}: ${err}`);
    return out;
  }
}
