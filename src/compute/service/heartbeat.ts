// The heartbeat: a report_count that grows (contract section 4.2). Nothing that happens to the conductor ends it.
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { aborted, sleep } from '#src/lib/wait.ts';
import { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { ServiceRecord } from './service-record.ts';

export interface HeartbeatOptions {
  /** Its calls should time out within about an interval: a late answer is worth less than the next beat. */
  readonly conductor: Conductor;
  readonly intervalMs: number;
  readonly log: Log;
  readonly firstAfterMs?: number;
  /** The conductor is back after it did not answer. */
  readonly onAnsweredAgain?: () => void;
}

export class Heartbeat implements Service {
  readonly name = 'heartbeat';
  readonly #options: HeartbeatOptions;
  readonly #record: ServiceRecord;
  readonly #context = RequestContext.admin();
  readonly #ending = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #isFailing = false;

  /** `record` as read from the database: the count goes on from there. */
  constructor(record: ServiceRecord, options: HeartbeatOptions) {
    this.#record = record;
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#loop = this.#beatUntilEnd();
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#ending.abort();
    await Promise.race([this.#loop, aborted(signal)]);
  }

  async #beatUntilEnd(): Promise<void> {
    const { intervalMs, firstAfterMs = 5000 } = this.#options;
    const { signal } = this.#ending;
    let due = Date.now() + firstAfterMs;
    while (!signal.aborted) {
      await sleep(Math.max(0, due - Date.now()), signal).catch(() => undefined);
      if (signal.aborted) return;
      await this.#beat();
      // beats that were missed are not made up for
      due = Math.max(due + intervalMs, Date.now());
    }
  }

  async #beat(): Promise<void> {
    const { conductor, log, onAnsweredAgain } = this.#options;
    try {
      this.#record.set('report_count', this.#record.get('report_count') + 1);
      await conductor.save(this.#context, this.#record);
      if (!this.#isFailing) return;
      this.#isFailing = false;
      log.info('heartbeat is answered again');
      onAnsweredAgain?.();
    } catch (error) {
      if (!this.#isFailing) log.error(reasonOf(error), { error });
      this.#isFailing = true;
    }
  }
}

function reasonOf(error: unknown): string {
  return isNova(error, 'ServiceNotFound')
    ? 'somebody deleted the service record of this host; a restart makes it anew'
    : 'heartbeat failed, this host may be seen as down';
}
