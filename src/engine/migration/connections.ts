// How the two ends of a migration find each other: one waits for connections that carry its secrets, the other one dials.
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { OperationSpec } from '../types.ts';
import { Channel } from './channel.ts';

export interface Channels extends Disposable {
  readonly control: Channel;
  readonly fs: Channel;
}

type ChannelName = 'control' | 'fs';
export type Secrets = Readonly<Record<ChannelName, string>>;

const NAMES: readonly ChannelName[] = ['control', 'fs'];
const CONNECT_MS = 10_000;
const MAX_MESSAGE_BYTES = 64 << 20;

/** The end that is connected to. */
export class ExpectedConnections {
  readonly secrets: Secrets = { control: randomBytes(32).toString('hex'), fs: randomBytes(32).toString('hex') };
  readonly #channels = new Map<ChannelName, Channel>();
  readonly #complete = Promise.withResolvers<Channels>();

  constructor() {
    this.#complete.promise.catch(() => undefined);
  }

  /** For the operation: undefined for a secret that is none, or was used. */
  connect(secret: string): ((socket: WebSocket) => void) | undefined {
    const name = NAMES.find((one) => this.secrets[one] === secret);
    if (name === undefined || this.#channels.has(name)) return undefined;
    return (socket) => this.#add(name, socket);
  }

  #add(name: ChannelName, socket: WebSocket): void {
    this.#channels.set(name, new Channel(socket));
    const control = this.#channels.get('control');
    const fs = this.#channels.get('fs');
    if (control && fs) this.#complete.resolve(channelsOf(control, fs));
  }

  async wait(signal: AbortSignal): Promise<Channels> {
    const limit = limited(CONNECT_MS, signal);
    const { promise, reject } = Promise.withResolvers<never>();
    const late = (): void => {
      for (const channel of this.#channels.values()) channel[Symbol.dispose]();
      reject(signal.aborted ? (signal.reason as Error) : timedOut());
    };
    limit.addEventListener('abort', late, { once: true });
    try {
      return await Promise.race([this.#complete.promise, promise]);
    } finally {
      limit.removeEventListener('abort', late);
    }
  }
}

/** An operation that the other end connects to. */
export function websocketSpec(spec: OperationSpec, expected: ExpectedConnections): OperationSpec {
  return {
    ...spec,
    class: 'websocket',
    metadata: expected.secrets,
    connect: (secret) => expected.connect(secret),
  };
}

function timedOut(): AppError {
  return new AppError('unavailable', 'Timed out waiting for migration connections');
}

function channelsOf(control: Channel, fs: Channel): Channels {
  return {
    control,
    fs,
    [Symbol.dispose]() {
      control[Symbol.dispose]();
      fs[Symbol.dispose]();
    },
  };
}

export interface PeerOperation {
  /** URL of the operation on the peer. */
  readonly operation: string;
  /** PEM of the peer's certificate; empty: one that the host trusts. */
  readonly certificate: string;
  readonly secrets: Readonly<Record<string, string>>;
}

/** The end that connects. */
export async function dial(peer: PeerOperation, signal: AbortSignal): Promise<Channels> {
  const control = await dialOne(peer, 'control', signal);
  try {
    return channelsOf(control, await dialOne(peer, 'fs', signal));
  } catch (error) {
    control[Symbol.dispose]();
    throw error;
  }
}

async function dialOne({ operation, certificate, secrets }: PeerOperation, name: ChannelName, signal: AbortSignal) {
  const secret = secrets[name] ?? '';
  if (secret === '') throw new AppError('invalid', `Missing ${name} secret`);
  const url = websocketUrl(operation, secret);
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    handshakeTimeout: CONNECT_MS,
    maxPayload: MAX_MESSAGE_BYTES,
    ...(certificate !== '' && pinned(certificate)),
  });
  const channel = new Channel(socket);
  try {
    await once(socket, 'open', { signal: limited(CONNECT_MS, signal) });
    return channel;
  } catch (cause) {
    socket.terminate();
    throw new AppError('unavailable', `Failed connecting to ${new URL(url).host}: ${messageOf(cause)}`, { cause });
  }
}

function websocketUrl(operation: string, secret: string): URL {
  if (!URL.canParse(operation)) throw new AppError('invalid', `Invalid operation URL: ${operation}`);
  const url = new URL(operation);
  if (url.protocol !== 'https:') throw new AppError('invalid', `Invalid operation URL: ${operation}`);
  url.protocol = 'wss:';
  url.pathname = `${url.pathname}/websocket`;
  url.searchParams.set('secret', secret);
  return url;
}

/** Exactly this certificate, whatever names and authorities it has. */
function pinned(pem: string): object {
  let wanted: string;
  try {
    wanted = fingerprint(new X509Certificate(pem).raw);
  } catch (cause) {
    throw new AppError('invalid', 'Invalid certificate', { cause });
  }
  return {
    ca: [pem],
    checkServerIdentity: (_host: string, { raw }: { readonly raw: Buffer }) => {
      return fingerprint(raw) === wanted ? undefined : new Error('the peer has another certificate');
    },
  };
}

function fingerprint(raw: Buffer): string {
  return createHash('sha256').update(raw).digest('hex');
}
