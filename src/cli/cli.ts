// What every command of the client is given: engines, where to print, how to wait.
import { EngineClient } from '#src/client/client.ts';
import type { CallOptions, PendingOperation } from '#src/client/operations.ts';
import type { Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { endpointOf } from './connect.ts';
import type { Remotes } from './remotes.ts';
import type { Terminal } from './terminal.ts';

interface GlobalOptions {
  readonly project?: string;
  readonly quiet?: boolean;
  readonly forceLocal?: boolean;
}

/** What `[<remote>:]<name>` says. */
export interface Target {
  readonly remote: string;
  readonly name: string;
  readonly client: EngineClient;
}

export class Cli implements Disposable {
  readonly terminal: Terminal;
  readonly remotes: Remotes;
  /** Of the command, when it ends well. */
  exitCode = 0;
  readonly #clients = new Map<string, EngineClient>();
  #options: GlobalOptions = {};
  #progressWidth = 0;

  constructor(terminal: Terminal, remotes: Remotes) {
    this.terminal = terminal;
    this.remotes = remotes;
  }

  /** Global flags, known once the command line is parsed. */
  configure(options: GlobalOptions): void {
    this.#options = options;
  }

  get defaultRemote(): string {
    return this.#options.forceLocal === true ? 'local' : this.remotes.defaultName;
  }

  /** The name of a remote, and the rest: an absent one is the default. */
  split(text: string): Omit<Target, 'client'> {
    const [, remote, name] = /^([A-Za-z0-9._-]+):(.*)$/s.exec(text) ?? [];
    if (remote === undefined || name === undefined) return { remote: this.defaultRemote, name: text };
    this.remotes.get(remote);
    return { remote, name };
  }

  async at(text: string): Promise<Target> {
    const { remote, name } = this.split(text);
    return { remote, name, client: await this.client(remote) };
  }

  /** The project that names are looked up in; undefined: the default one. */
  projectOf(remote: string): string | undefined {
    return this.#options.project ?? this.remotes.get(remote).project;
  }

  /** Of another project than the one in force, when one is named. Closed with the rest. */
  async client(remote = this.defaultRemote, project = this.projectOf(remote)): Promise<EngineClient> {
    const key = `${remote}\n${project ?? ''}`;
    const known = this.#clients.get(key);
    if (known) return known;
    const endpoint = await endpointOf(this.remotes, remote, this.terminal.socketPath);
    const made = new EngineClient(project === undefined ? { endpoint } : { endpoint, project });
    this.#clients.set(key, made);
    return made;
  }

  get signal(): AbortSignal {
    return this.terminal.signal;
  }

  /** How operations are waited for. */
  get call(): CallOptions & { readonly signal: AbortSignal } {
    return { signal: this.signal, onProgress: this.onProgress };
  }

  print(line: string): void {
    this.terminal.out(`${line}\n`);
  }

  /** A message about what happens; not with --quiet. */
  say(line: string): void {
    if (this.#options.quiet !== true) this.print(line);
  }

  readonly onProgress = (operation: Operation): void => {
    const text = Object.entries(operation.metadata ?? {}).find(([key]) => key.endsWith('_progress'))?.[1];
    if (typeof text === 'string') this.showProgress(text);
  };

  /** One line that the next one overwrites; only where somebody looks. */
  showProgress(text: string): void {
    if (this.#options.quiet === true || !this.terminal.isInteractive) return;
    this.terminal.err(`\r${text.padEnd(this.#progressWidth)}`);
    this.#progressWidth = Math.max(this.#progressWidth, text.length);
  }

  endProgress(): void {
    if (this.#progressWidth > 0) this.terminal.err(`\r${' '.repeat(this.#progressWidth)}\r`);
    this.#progressWidth = 0;
  }

  /** Waits for an operation and takes its progress off the screen. */
  async finish(pending: Promise<PendingOperation>): Promise<Operation> {
    try {
      return await (await pending).wait(this.signal);
    } finally {
      this.endProgress();
    }
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client.close();
  }
}

/** Collects an option that may be given several times. */
export function repeated(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}

/** `key=value`, split at the first `=`. */
export function keyValue(text: string): readonly [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new AppError('invalid', `Bad key=value pair: ${text}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** `key=value …`, or one key and one value as older clients wrote. */
export function keyValues(words: readonly string[]): Readonly<Record<string, string>> {
  const [key = '', value = ''] = words;
  if (words.length === 2 && !key.includes('=')) return { [key]: value };
  return Object.fromEntries(words.map(keyValue));
}
