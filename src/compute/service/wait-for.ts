// Waiting at start for what other processes provide: the conductor, the engine (contract section 4.1, step 3).
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import type { RpcClient } from '#src/messaging/types.ts';
import { pingConductor } from '#src/nova/conductor.ts';
import { RequestContext } from '#src/nova/context.ts';

const SHORT_ATTEMPTS = 10;
const SHORT_TIMEOUT_MS = 10_000;
const PAUSE_MS = 1000;
const ENGINE_PAUSE_MS = 5000;

/** Ten short attempts, then patient ones, for ever. */
export async function waitForConductor(
  rpc: RpcClient,
  patientTimeoutMs: number,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const timeoutMs = attempt <= SHORT_ATTEMPTS ? SHORT_TIMEOUT_MS : patientTimeoutMs;
      return await pingConductor(rpc, RequestContext.admin(), { timeoutMs, signal });
    } catch (error) {
      signal.throwIfAborted();
      log.warn('no nova-conductor answers; is it running, and does it use this message broker?', { attempt, error });
      await sleep(PAUSE_MS, signal);
    }
  }
}

/** An engine that is only not there yet is waited for; any other refusal is the operator's to correct. */
export async function waitForEngine(
  start: (signal: AbortSignal) => Promise<void>,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  for (let isFirst = true; ; isFirst = false) {
    try {
      return await start(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (kindOf(error) !== 'unavailable') throw error;
      if (isFirst) log.warn('waiting for the engine', { reason: messageOf(error) });
      await sleep(ENGINE_PAUSE_MS, signal);
    }
  }
}
