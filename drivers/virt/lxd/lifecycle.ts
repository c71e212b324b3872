// What happens to Nova's instances behind its back: the engine's events, and a comparison after the stream was interrupted.
import type { EngineClient } from '#src/client/client.ts';
import type { ApiEvent, LifecycleMetadata } from '#src/client/wire.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { type LifecycleEvent, POWER_STATE, type PowerState } from '../driver.ts';
import type { Directory } from './directory.ts';
import { powerStateOf } from './power-state.ts';

type Kind = LifecycleEvent['event'];

const KINDS: Readonly<Record<string, Kind>> = {
  'instance-started': 'started',
  'instance-restarted': 'started',
  'instance-stopped': 'stopped',
  'instance-shutdown': 'stopped',
  'instance-paused': 'paused',
  'instance-resumed': 'resumed',
};

const STATE_AFTER: Readonly<Record<Kind, PowerState>> = {
  started: POWER_STATE.running,
  resumed: POWER_STATE.running,
  stopped: POWER_STATE.shutdown,
  paused: POWER_STATE.paused,
};

const LOOKUP_LIMIT_MS = 30_000;

export interface LifecycleParts {
  readonly client: EngineClient;
  readonly directory: Directory;
  readonly log: Log;
  readonly recovered: (limit: AbortSignal) => Promise<void>;
}

export class Lifecycle {
  readonly #client: EngineClient;
  readonly #directory: Directory;
  readonly #log: Log;
  readonly #recovered: LifecycleParts['recovered'];
  readonly #listeners = new Set<(event: LifecycleEvent) => void>();
  readonly #states = new Map<string, PowerState>();
  readonly #stopped = new AbortController();
  #subscription: Disposable | undefined;
  #last: Promise<void> = Promise.resolve();

  /** `recovered` runs when the stream is open again after an interruption. */
  constructor(parts: LifecycleParts) {
    const { client, directory, log, recovered } = parts;
    this.#recovered = recovered;
    this.#client = client;
    this.#directory = directory;
    this.#log = log;
  }

  /** Opens the event stream and learns the states that later ones are compared with. */
  async start(signal: AbortSignal): Promise<void> {
    let first = true;
    this.#subscription = this.#client.events.listen({
      event: (event) => this.#enqueue(async (limit) => this.#take(event, limit)),
      opened: () => {
        if (!first) {
          this.#enqueue(async (limit) => this.#resync(limit));
          this.#enqueue(this.#recovered);
        }
        first = false;
      },
    });
    first = !this.#client.events.isOpen;
    await this.#client.events.open();
    for (const [uuid, instance] of await this.#directory.list(signal)) {
      this.#states.set(uuid, powerStateOf(instance.status_code));
    }
  }

  stop(): void {
    this.#stopped.abort(new AppError('unavailable', 'the driver stops'));
    this.#subscription?.[Symbol.dispose]();
  }

  onLifecycle(listener: (event: LifecycleEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** One after another, in the order of their arrival. */
  #enqueue(work: (limit: AbortSignal) => Promise<void>): void {
    this.#last = this.#last
      .then(async () => work(AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(LOOKUP_LIMIT_MS)])))
      .catch((error: unknown) => {
        if (this.#stopped.signal.aborted) return;
        this.#log.warn('what the engine told could not be followed', { error: asError(error) });
      });
  }

  async #take(event: ApiEvent, limit: AbortSignal): Promise<void> {
    if (event.type !== 'lifecycle') return;
    const { action, source } = event.metadata as LifecycleMetadata;
    const name = instanceName(source);
    const kind = KINDS[action];
    if (name === undefined) return;
    if (action === 'instance-deleted') return this.#forget(name);
    const uuid = kind && (await this.#directory.uuidOf(name, limit));
    if (kind && uuid !== undefined) this.#report(uuid, kind);
  }

  #forget(name: string): void {
    const uuid = this.#directory.forgetName(name);
    if (uuid !== undefined) this.#states.delete(uuid);
  }

  #report(uuid: string, event: Kind): void {
    this.#states.set(uuid, STATE_AFTER[event]);
    for (const listener of this.#listeners) listener({ uuid, event });
  }

  /** Events of the interruption are lost: what changed is found by looking. */
  async #resync(limit: AbortSignal): Promise<void> {
    const seen = new Set<string>();
    for (const [uuid, instance] of await this.#directory.list(limit)) {
      seen.add(uuid);
      const before = this.#states.get(uuid);
      const now = powerStateOf(instance.status_code);
      const change = before === now ? undefined : changeTo(now, before);
      this.#states.set(uuid, now);
      if (change) this.#report(uuid, change);
    }
    for (const uuid of this.#states.keys()) if (!seen.has(uuid)) this.#states.delete(uuid);
  }
}

function changeTo(now: PowerState, before: PowerState | undefined): Kind | undefined {
  if (now === POWER_STATE.running) return before === POWER_STATE.paused ? 'resumed' : 'started';
  if (now === POWER_STATE.paused) return 'paused';
  return now === POWER_STATE.shutdown || now === POWER_STATE.crashed ? 'stopped' : undefined;
}

/** From `/1.0/instances/NAME?project=…`; undefined for other sources and for snapshots. */
function instanceName(source: string): string | undefined {
  const name = /^\/1\.0\/(?:instances|containers)\/([^/?]+)(?:\?.*)?$/.exec(source)?.[1];
  return name === undefined ? undefined : decodeURIComponent(name);
}
