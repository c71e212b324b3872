// The forward server: a process beside the daemon that carries the connections of all proxy devices of an engine. It outlives
// the daemon: what it carries does not end with a restart. It ends by itself when nothing is left to carry.
import { getSystemErrorMap } from 'node:util';
import { messageOf } from '#src/lib/errors.ts';
import { keepModes, leaveGroups } from './calls.ts';
import { Control } from './control.ts';
import { Forward } from './forward.ts';
import { Loop } from './loop.ts';
import { FORWARD_VERSION, type ForwardAnswer, type ForwardRequest, type ForwardSpec } from './messages.ts';
import { HostSide } from './sides.ts';

const TICK_MS = 1000;
/** For the daemon to come back with something after it has removed the last one. */
const LINGER_MS = 10_000;
/** A log line for each proxy, at most once in. */
const QUIET_MS = 10_000;

export interface ServerOptions {
  /** Of the control socket. */
  readonly directory: string;
  /** Standard error. */
  readonly log: (line: string) => void;
}

/** Returns when there is nothing to do any more. Never gives control to JavaScript's own event loop. */
export function serveForwards({ directory, log }: ServerOptions): void {
  keepModes();
  leaveGroups();
  const server = new ForwardServer(log);
  const control = new Control({ loop: server.loop, directory, answer: (request) => server.answer(request) });
  server.run();
  control.close();
}

class ForwardServer {
  readonly loop: Loop;
  readonly #host = new HostSide();
  readonly #forwards = new Map<string, Forward>();
  readonly #saidAt = new Map<string, number>();
  readonly #log: (line: string) => void;
  #ended = false;
  #emptyAt = Date.now();

  constructor(log: (line: string) => void) {
    this.#log = log;
    this.loop = new Loop((error) => log(`${messageOf(error)}\n`));
  }

  run(): void {
    while (!this.#isDone()) {
      const all = [...this.#forwards.values()];
      const ticks = all.length === 0 || all.some(({ needsTicks }) => needsTicks);
      this.loop.turn(ticks ? TICK_MS : -1);
      if (!ticks) continue;
      const now = Date.now();
      for (const forward of all) if (this.#forwards.get(forward.spec.id) === forward) forward.tick(now);
    }
    for (const forward of this.#forwards.values()) forward.close();
  }

  #isDone(): boolean {
    return this.#ended || (this.#forwards.size === 0 && Date.now() - this.#emptyAt > LINGER_MS);
  }

  answer(request: ForwardRequest): ForwardAnswer {
    try {
      switch (request.ask) {
        case 'version':
          return { version: FORWARD_VERSION };
        case 'add':
          this.#add(request.spec);
          return {};
        case 'remove':
          this.#remove(request.id);
          return {};
        case 'exit':
          this.#ended = true;
          return {};
      }
    } catch (error) {
      return { error: wordsOf(error) };
    }
  }

  /** What is there already stays, with its connections. */
  #add(spec: ForwardSpec): void {
    const present = this.#forwards.get(spec.id);
    if (present && JSON.stringify(present.spec) === JSON.stringify(spec)) return;
    this.#remove(spec.id);
    const forward = new Forward(spec, {
      loop: this.loop,
      host: this.#host,
      gone: () => this.#forget(spec.id),
      failed: (error) => this.#say(spec.id, error),
    });
    this.#forwards.set(spec.id, forward);
  }

  #remove(id: string): void {
    this.#forwards.get(id)?.close();
    this.#forget(id);
  }

  #forget(id: string): void {
    this.#forwards.delete(id);
    this.#saidAt.delete(id);
    if (this.#forwards.size === 0) this.#emptyAt = Date.now();
  }

  #say(id: string, error: unknown): void {
    const now = Date.now();
    if (now - (this.#saidAt.get(id) ?? 0) < QUIET_MS) return;
    this.#saidAt.set(id, now);
    this.#log(`${new Date(now).toISOString()} ${id}: ${wordsOf(error)}\n`);
  }
}

/** As people know them: "address already in use". */
function wordsOf(error: unknown): string {
  const { errno, call } = error as { errno?: string; call?: string };
  if (errno === undefined) return messageOf(error);
  const words = [...getSystemErrorMap().values()].find(([name]) => name === errno)?.[1] ?? errno;
  return `${call}: ${words}`;
}
