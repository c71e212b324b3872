// A terminal in memory: what a command printed, and what it is given to read.
import { Readable, Writable } from 'node:stream';
import { HostDoctor } from '#src/host/doctor/doctor.ts';
import type { Terminal } from '#src/cli/terminal.ts';
import { FakeHost } from './fake-host.ts';

export class FakeTerminal implements Terminal {
  /** The machine that is examined. */
  readonly host = new FakeHost();
  output = '';
  errors = '';
  /** What an editor makes of the file that it is given. */
  edits: ((file: string) => Promise<void>)[] = [];
  readonly isInteractive = false;
  readonly signal: AbortSignal;
  readonly version = '1.2.3';
  readonly socketPath: string;
  readonly configDirectory: string;
  readonly streams: Terminal['streams'];
  readonly screen: Terminal['screen'];
  readonly #input: string | undefined;

  /** `input` undefined: standard input is a terminal where nobody types. */
  constructor(options: {
    readonly socketPath: string;
    readonly configDirectory?: string;
    readonly input?: string | undefined;
    readonly signal?: AbortSignal | undefined;
  }) {
    this.#input = options.input;
    this.signal = options.signal ?? AbortSignal.timeout(5000);
    this.socketPath = options.socketPath;
    this.configDirectory = options.configDirectory ?? '/nonexistent/lighter';
    const sink = (take: (text: string) => void): Writable =>
      new Writable({ write: (chunk, _encoding, done) => (take(String(chunk)), done()) });
    this.streams = {
      stdin: Readable.from([options.input ?? '']),
      stdout: sink((text) => (this.output += text)),
      stderr: sink((text) => (this.errors += text)),
    };
    const nothing = { [Symbol.dispose]: () => {} };
    this.screen = {
      isInput: options.input === undefined,
      isOutput: false,
      type: 'dumb',
      size: () => ({ width: 80, height: 24 }),
      raw: () => nothing,
      onResize: () => nothing,
      takeSignals: () => nothing,
    };
  }

  readonly out = (text: string): void => void (this.output += text);
  readonly err = (text: string): void => void (this.errors += text);
  readonly readInput = async (): Promise<string> => this.#input ?? '';
  readonly doctor = async (): Promise<HostDoctor> => new HostDoctor(this.host, '/var/lib/lighter');
  readonly edit = async (file: string): Promise<void> => {
    await this.edits.shift()?.(file);
  };
}
