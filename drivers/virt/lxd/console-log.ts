// Console logs. LXD hands out what a running container printed only once, so what was read is kept here.
import { addAbortSignal, type Readable } from 'node:stream';
import type { EngineClient } from '#src/client/client.ts';
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { Directory } from './directory.ts';
import { powerStateOf } from './power-state.ts';
import { POWER_STATE } from '../driver.ts';

/** More than Nova ever asks for (100 KiB). */
const KEPT_BYTES = 128 * 1024;
/** Enough of a log's beginning to know it again. */
const HEAD_BYTES = 256;

export class ConsoleLogs {
  readonly #client: EngineClient;
  readonly #directory: Directory;
  readonly #read = new Map<string, Buffer>();

  constructor(client: EngineClient, directory: Directory) {
    this.#client = client;
    this.#directory = directory;
  }

  /** The last `maxBytes`; AppError 'not_found' when there is no such instance. */
  async tail(uuid: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    const { name, status_code } = await this.#directory.get(uuid, signal);
    const answer = await this.#fetch(name, signal);
    // The log of a stopped one is always whole; so are the answers of servers that do not forget.
    const isStopped = powerStateOf(status_code) === POWER_STATE.shutdown;
    const earlier = this.#read.get(uuid) ?? Buffer.alloc(0);
    const isWhole = answer.length > 0 && (isStopped || startsAlike(answer, earlier));
    const log = lastBytes(isWhole ? answer : Buffer.concat([earlier, answer]), KEPT_BYTES);
    this.#read.set(uuid, log);
    return lastBytes(log, maxBytes);
  }

  forget(uuid: string): void {
    this.#read.delete(uuid);
  }

  async #fetch(name: string, signal: AbortSignal): Promise<Buffer> {
    try {
      return await readTail(await this.#client.instances.consoleLog(name, signal), KEPT_BYTES, signal);
    } catch (error) {
      // Nothing printed yet, or nothing new: servers differ in how they say so.
      if (kindOf(error) === 'not_found' || /no such file/i.test(messageOf(error))) return Buffer.alloc(0);
      throw error;
    }
  }
}

function startsAlike(answer: Buffer, earlier: Buffer): boolean {
  const head = earlier.subarray(0, HEAD_BYTES);
  return answer.subarray(0, head.length).equals(head);
}

function lastBytes(buffer: Buffer, count: number): Buffer {
  return count < buffer.length ? buffer.subarray(buffer.length - count) : buffer;
}

/** The end of a stream, never holding much more than it. */
async function readTail(stream: Readable, maxBytes: number, signal: AbortSignal): Promise<Buffer> {
  let tail: Buffer = Buffer.alloc(0);
  let fresh: Buffer[] = [];
  let freshBytes = 0;
  for await (const chunk of addAbortSignal(signal, stream)) {
    fresh.push(chunk as Buffer);
    freshBytes += (chunk as Buffer).length;
    if (freshBytes < maxBytes) continue;
    tail = lastBytes(Buffer.concat([tail, ...fresh]), maxBytes);
    fresh = [];
    freshBytes = 0;
  }
  return lastBytes(Buffer.concat([tail, ...fresh]), maxBytes);
}
