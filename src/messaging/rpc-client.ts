// Calls and casts (sections 1.5, 1.6, 1.7).
import { AppError, asError } from '#src/lib/errors.ts';
import type { ReplyWaiter } from './reply-waiter.ts';
import { hexId, requestPayload } from './request.ts';
import type { CallOptions, RpcClient, RpcRequest } from './types.ts';
import { sendRequest, type Wire } from './wire.ts';

export class WireRpcClient implements RpcClient {
  readonly #wire: Wire;
  readonly #replies: ReplyWaiter;
  readonly #timeoutMs: number;

  constructor(wire: Wire, replies: ReplyWaiter, timeoutMs: number) {
    this.#wire = wire;
    this.#replies = replies;
    this.#timeoutMs = timeoutMs;
  }

  async cast(request: RpcRequest): Promise<void> {
    await sendRequest(this.#wire, request.target, requestPayload(request));
  }

  async call(request: RpcRequest, options: CallOptions = {}): Promise<unknown> {
    const { timeoutMs = this.#timeoutMs, monitorMs, signal } = options;
    signal?.throwIfAborted();
    const msgId = hexId();
    const limit = new AbortController();
    const answer = Promise.withResolvers<unknown>();
    const giveUp = (error: Error): void => {
      answer.reject(error);
      limit.abort(error);
    };
    const onAbort = (): void => giveUp(asError(signal?.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    const total = setTimeout(() => giveUp(timedOut(request, timeoutMs)), timeoutMs);
    const monitor = new Deadline(monitorMs, () => giveUp(timedOut(request, monitorMs ?? 0)));
    this.#replies.add(msgId, {
      resolve: answer.resolve,
      reject: answer.reject,
      onSignOfLife: () => monitor.restart(),
    });
    try {
      // a reply may overtake the broker's confirm: only its failure matters
      this.#send(request, { msgId, timeoutMs, monitorMs, signal: limit.signal }).catch(answer.reject);
      return await answer.promise;
    } finally {
      clearTimeout(total);
      monitor.stop();
      signal?.removeEventListener('abort', onAbort);
      this.#replies.remove(msgId);
    }
  }

  async #send(request: RpcRequest, { msgId, timeoutMs, monitorMs, signal }: Sending): Promise<void> {
    const replyQueue = await this.#replies.open(signal);
    const monitorSeconds = monitorMs === undefined ? null : Math.round(monitorMs / 1000);
    const payload = requestPayload(request, { msgId, replyQueue, monitorSeconds });
    await sendRequest(this.#wire, request.target, payload, { expirationMs: timeoutMs, signal });
  }
}

interface Sending {
  readonly msgId: string;
  readonly timeoutMs: number;
  readonly monitorMs: number | undefined;
  readonly signal: AbortSignal;
}

/** A timer that starts again at each sign of life. */
class Deadline {
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(ms: number | undefined, onOver: () => void) {
    if (ms !== undefined) this.#timer = setTimeout(onOver, ms);
  }

  restart(): void {
    this.#timer?.refresh();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

function timedOut({ method, target }: RpcRequest, ms: number): AppError {
  const to = target.server === undefined ? target.topic : `${target.topic}.${target.server}`;
  return new AppError('unavailable', `no reply to ${method} from '${to}' within ${ms / 1000} s`);
}
