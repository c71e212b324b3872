// The guest's way out: its disk goes to the destination while both computes watch, and is safe there before Nova is told.
import { kindOf } from '#src/lib/errors.ts';
import { Turns } from '#src/lib/turns.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import { isRemote } from '#src/messaging/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { ComputeServices } from '../types.ts';
import type { Move } from './failing.ts';
import { BUSY, RECEIVE_GUEST } from './peer.ts';

const BUSY_PAUSE_MS = 5000;
/** What the destination needs beside the copy itself. */
const MARGIN_MS = 60_000;
const PROGRESS_EVERY_MS = 10_000;

export class GuestSender {
  readonly #services: ComputeServices;
  readonly #turns: Turns;
  readonly #running = new Map<string, AbortController>();

  constructor(services: ComputeServices) {
    this.#services = services;
    this.#turns = new Turns(services.config.lxd.maxConcurrentMigrations);
  }

  /** The instance is being deleted: nobody needs the copy. */
  interrupt(uuid: string): void {
    this.#running.get(uuid)?.abort(novaException('MigrationError', { reason: 'the instance is being deleted' }));
  }

  /** `sizeBytes`: of its disk, for the progress; null: unknown. A failure is a MigrationError that says what went wrong. */
  async send(context: RequestContext, move: Move, sizeBytes: number | null, signal: AbortSignal): Promise<void> {
    const uuid = move.instance.get('uuid');
    const stop = new AbortController();
    const either = limited(this.#services.config.lxd.migrationTimeoutMs, AbortSignal.any([signal, stop.signal]));
    this.#running.set(uuid, stop);
    try {
      const work = () => this.#sendWhenPossible(context, move, sizeBytes, either);
      await this.#turns.run(work, either);
    } catch (error) {
      stop.signal.throwIfAborted();
      this.#services.log.warn('instance could not be copied to another host', { instance: uuid, error });
      const reason = `the instance could not be copied to ${move.migration.get('dest_compute')}: ${wording(error)}`;
      throw novaException('MigrationError', { reason }, { cause: error });
    } finally {
      this.#running.delete(uuid);
    }
  }

  async #sendWhenPossible(context: RequestContext, move: Move, sizeBytes: number | null, signal: AbortSignal) {
    while ((await this.#trySend(context, move, sizeBytes, signal)) === BUSY) {
      await sleep(BUSY_PAUSE_MS * (1 + Math.random()), signal);
    }
  }

  async #trySend(
    context: RequestContext,
    { instance, migration }: Move,
    sizeBytes: number | null,
    signal: AbortSignal,
  ) {
    const { virt, rpc, config } = this.#services;
    const progress = new Progress(this.#services, context, { instance, sizeBytes });
    await using offer = await virt.moves.offer(instance.get('uuid'), signal, (bytes) => progress.report(bytes));
    const timeoutMs = config.lxd.migrationTimeoutMs + MARGIN_MS;
    const options = { timeoutMs, monitorMs: config.messaging.responseTimeoutMs, signal };
    const args = { migration_id: migration.get('id'), ticket: offer.ticket };
    const target = { topic: 'compute', server: migration.get('dest_compute') ?? '', ...RECEIVE_GUEST.target };
    const answer = await rpc.call({ target, method: RECEIVE_GUEST.method, args, context: context.toWire() }, options);
    if (answer === BUSY) return BUSY;
    await offer.fetched(signal);
    await progress.end();
    return answer;
  }
}

/** For the owner of the instance, who has no use for what engines say to each other: that is in the log. */
function wording(error: unknown): string {
  if (isRemote(error, 'UnsupportedVersion', 'NoSuchMethod')) return 'that host runs another kind of compute';
  if (isRemote(error, 'MigrationPreCheckError')) return error.remoteMessage;
  return kindOf(error) === 'unavailable' ? 'that host could not be reached, or did not finish in time' : 'it failed';
}

/** `progress` of the instance, now and then; a save that fails is of no consequence. */
class Progress {
  readonly #services: ComputeServices;
  readonly #context: RequestContext;
  readonly #subject: Pick<Move, 'instance'> & { readonly sizeBytes: number | null };
  #savedAt = performance.now();
  #last: Promise<void> = Promise.resolve();

  constructor(
    services: ComputeServices,
    context: RequestContext,
    subject: Pick<Move, 'instance'> & { readonly sizeBytes: number | null },
  ) {
    this.#services = services;
    this.#context = context;
    this.#subject = subject;
  }

  report(bytes: number): void {
    const { conductor, log } = this.#services;
    const { instance, sizeBytes } = this.#subject;
    const now = performance.now();
    if (sizeBytes === null || sizeBytes <= 0 || now - this.#savedAt < PROGRESS_EVERY_MS) return;
    this.#savedAt = now;
    this.#last = this.#last.then(async () => {
      instance.set('progress', Math.min(99, Math.round((100 * bytes) / sizeBytes)));
      await conductor.save(this.#context, instance).catch((error: unknown) => {
        log.debug('cannot save the progress of a migration', { instance: instance.get('uuid'), error });
      });
    });
  }

  /** No save is under way any more. */
  async end(): Promise<void> {
    await this.#last;
  }
}
