// The part of amqplib that is used here, and how a connection to a broker is opened (sections 1.1 and 1.2).
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import amqplib from 'amqplib';
import type { Channel, ChannelModel, ConfirmChannel, SocketOptions } from 'amqplib';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { RabbitOptions } from './options.ts';
import type { BrokerAddress } from './transport-url.ts';

export type { ConsumeMessage } from 'amqplib';

type ChannelMethods =
  | 'assertExchange'
  | 'assertQueue'
  | 'deleteQueue'
  | 'bindQueue'
  | 'consume'
  | 'cancel'
  | 'ack'
  | 'reject'
  | 'prefetch'
  | 'close'
  | 'on';

export type AmqpChannel = Pick<Channel, ChannelMethods>;
export type AmqpConfirmChannel = Pick<ConfirmChannel, ChannelMethods | 'publish'>;

export interface AmqpConnection {
  createChannel(): Promise<AmqpChannel>;
  createConfirmChannel(): Promise<AmqpConfirmChannel>;
  close(): Promise<void>;
  /** Ends it at once, without a word to the broker: for a peer that does not answer any more. */
  destroy(): void;
  /** Bytes received so far: signs of life. */
  readonly bytesReceived: number;
  on(event: 'close' | 'error', listener: (error?: Error) => void): unknown;
  on(event: 'blocked', listener: (reason: string) => void): unknown;
  on(event: 'unblocked', listener: () => void): unknown;
}

/** Opens a connection; tests put a broker in memory behind it. */
export type Dial = (broker: BrokerAddress) => Promise<AmqpConnection>;

export interface DialOptions {
  readonly rabbit: RabbitOptions;
  readonly virtualHost: string;
  readonly programName: string;
}

const CONNECT_TIMEOUT_MS = 10_000;

/** The reply code of an error that the broker closed a channel or connection with: 404, 406, 541 … */
export function replyCode(error: unknown): number | undefined {
  const code = error instanceof Error ? (error as Error & { code?: unknown }).code : undefined;
  return typeof code === 'number' ? code : undefined;
}

export function dialer({ rabbit, virtualHost, programName }: DialOptions): Dial {
  return async (broker) => {
    const tls = rabbit.ssl ? await tlsOptions(rabbit) : {};
    const model = await amqplib.connect(
      {
        protocol: rabbit.ssl ? 'amqps' : 'amqp',
        hostname: broker.host,
        port: broker.port,
        // amqplib decodes it once more
        vhost: encodeURIComponent(virtualHost),
        heartbeat: rabbit.heartbeat_timeout_threshold,
      },
      {
        ...tls,
        noDelay: true,
        keepAlive: true,
        timeout: CONNECT_TIMEOUT_MS,
        credentials: credentialsFor(broker, rabbit),
        // amqplib adds the capabilities that oslo names: consumer_cancel_notify, connection.blocked, …
        clientProperties: { connection_name: `${programName}:${process.pid}:${randomUUID()}` },
      },
    );
    return wrap(model);
  };
}

function wrap(model: ChannelModel): AmqpConnection {
  // amqplib keeps the socket to itself, but it has no other way to see whether the broker is alive or to hang up
  const { stream } = model.connection as unknown as { readonly stream: { bytesRead: number; destroy(): void } };
  return {
    createChannel: () => model.createChannel(),
    createConfirmChannel: () => model.createConfirmChannel(),
    close: () => model.close(),
    destroy: () => stream.destroy(),
    get bytesReceived() {
      return stream.bytesRead;
    },
    on: (event: string, listener: (...values: never[]) => void) =>
      model.on(event, listener as (...values: unknown[]) => void),
  };
}

type Credentials = NonNullable<SocketOptions['credentials']>;

function credentialsFor({ username, password }: BrokerAddress, { rabbit_login_method }: RabbitOptions): Credentials {
  switch (rabbit_login_method) {
    case 'PLAIN':
      return amqplib.credentials.plain(username, password);
    case 'EXTERNAL':
      return amqplib.credentials.external();
    default:
      return amqplib.credentials.amqplain(username, password);
  }
}

type TlsOptions = Pick<
  SocketOptions,
  'ca' | 'cert' | 'key' | 'rejectUnauthorized' | 'checkServerIdentity' | 'minVersion' | 'maxVersion'
>;

/** A CA means verification of the chain; no CA means none, as with oslo. Files are read anew for each connection. */
async function tlsOptions(rabbit: RabbitOptions): Promise<TlsOptions> {
  const [ca, cert, key] = await Promise.all([
    readPem('ssl_ca_file', rabbit.ssl_ca_file),
    readPem('ssl_cert_file', rabbit.ssl_cert_file),
    readPem('ssl_key_file', rabbit.ssl_key_file || rabbit.ssl_cert_file),
  ]);
  return {
    ...(ca ? { ca } : {}),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
    ...tlsVersions(rabbit.ssl_version),
    rejectUnauthorized: ca !== undefined,
    ...(rabbit.ssl_enforce_hostname_verification ? {} : { checkServerIdentity: () => undefined }),
  };
}

async function readPem(option: string, path: string): Promise<Buffer | undefined> {
  if (path === '') return undefined;
  try {
    return await readFile(path);
  } catch (error) {
    throw new AppError('invalid', `[oslo_messaging_rabbit] ${option}: ${messageOf(error)}`, { cause: error });
  }
}

function tlsVersions(name: string): Pick<TlsOptions, 'minVersion' | 'maxVersion'> {
  switch (name.toLowerCase()) {
    case '':
    case 'sslv23':
      return {};
    case 'tlsv1':
      return { minVersion: 'TLSv1', maxVersion: 'TLSv1' };
    case 'tlsv1_1':
      return { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1' };
    case 'tlsv1_2':
      return { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' };
    default:
      throw new AppError('unsupported', `[oslo_messaging_rabbit] ssl_version: '${name}' is not supported`);
  }
}
