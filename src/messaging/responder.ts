// The server's side of calls: replies, with patience for a caller that reconnects, and signs of life (1.6, 1.7).
import { sleep } from '#src/lib/wait.ts';
import { UndeliverableError } from './errors.ts';
import { ExpiringIds } from './recent-ids.ts';
import { hexId } from './request.ts';
import { sendReply, type Wire } from './wire.ts';

const RETRY_MS = 250;
const DEAD_QUEUES = 200;
const DEAD_QUEUE_TTL_MS = 60_000;

export interface CallId {
  readonly msgId: string;
  readonly replyQueue: string;
}

/** `failure` is JSON text (failure.ts) or null. */
export interface Outcome {
  readonly result: unknown;
  readonly failure: string | null;
}

export class Responder {
  readonly #wire: Wire;
  readonly #dead = new ExpiringIds(DEAD_QUEUES, DEAD_QUEUE_TTL_MS);

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  /** Gives up, with a log entry, when the caller's queue stays away for kombu_missing_consumer_retry_timeout. */
  async reply(call: CallId, { result, failure }: Outcome, signal: AbortSignal): Promise<void> {
    const payload = { result: result ?? null, failure, ending: true, _msg_id: call.msgId, _unique_id: hexId() };
    const { kombu_missing_consumer_retry_timeout: patienceSeconds } = this.#wire.context.rabbit;
    const giveUpAt = performance.now() + patienceSeconds * 1000;
    while (!this.#dead.has(call.replyQueue)) {
      try {
        await sendReply(this.#wire, call.replyQueue, payload, signal);
        return;
      } catch (error) {
        if (!(error instanceof UndeliverableError)) throw error;
        if (performance.now() >= giveUpAt) this.#dead.add(call.replyQueue);
        else await sleep(RETRY_MS, signal);
      }
    }
    this.#wire.log.warn('reply dropped: the queue of its caller is gone', { ...call });
  }

  /**
   * Sends a sign of life every N/2 seconds until disposed, when the caller asked for it with a whole N ≥ 2. Ends by itself
   * when it cannot be delivered: then the caller is gone, or it will time out and say so.
   */
  watch(call: CallId, monitor: unknown, signal: AbortSignal): Disposable {
    const seconds = Math.trunc(Number(monitor ?? 0));
    let timer: NodeJS.Timeout | undefined;
    let isSending = false;
    const stop = (): void => clearInterval(timer);
    const beat = async (): Promise<void> => {
      if (isSending) return; // there is no broker: one sign of life when it is back is enough
      isSending = true;
      const payload = { result: null, failure: null, ending: false, _msg_id: call.msgId, _unique_id: hexId() };
      try {
        await sendReply(this.#wire, call.replyQueue, payload, signal);
      } catch (error) {
        stop();
        this.#wire.log.debug('call monitoring ended', { ...call, error });
      } finally {
        isSending = false;
      }
    };
    if (seconds >= 2) timer = setInterval(() => void beat(), seconds * 500);
    return { [Symbol.dispose]: stop };
  }
}
