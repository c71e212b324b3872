// Copies between engines: what the target needs to fetch from the source.
import { Option } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { PendingOperation } from '#src/client/operations.ts';
import { relayMigration } from '#src/client/relay.ts';
import type { Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from './cli.ts';

/** Where another engine reaches this one. AppError 'invalid' when it listens nowhere on the network. */
export async function networkAddress(
  cli: Cli,
  { client, remote }: Place,
): Promise<{ readonly address: string; readonly certificate: string }> {
  const { environment } = await client.server(cli.signal);
  const addresses = (environment?.['addresses'] ?? []) as readonly string[];
  const { addr } = cli.remotes.get(remote);
  const address = addr.startsWith('https://') ? addr : addresses.map((text) => `https://${text}`)[0];
  const certificate = environment?.['certificate'];
  if (address !== undefined && typeof certificate === 'string') return { address, certificate };
  throw new AppError(
    'invalid',
    `The server "${remote}" is not listening on the network; set core.https_address there (lighter config set core.https_address=:8443)`,
  );
}

/** Who connects to whom. */
export const MODES = ['pull', 'push', 'relay'] as const;
export type Mode = (typeof MODES)[number];

export function modeOption(): Option {
  const text =
    'Transfer mode between engines: the target connects (pull), the source does (push), or this client to both';
  return new Option('--mode <mode>', text).choices(MODES).default('pull');
}

interface Place {
  readonly client: EngineClient;
  readonly remote: string;
}

export interface Transfer {
  readonly source: Place;
  readonly target: Place;
  /** Asks the source to send; with where to, if it is to connect. */
  readonly send: (to: { readonly target?: object }) => Promise<PendingOperation>;
  /** Asks the target to receive, from what this says. */
  readonly receive: (from: object) => Promise<PendingOperation>;
}

/** Resolves with the operation of the target when all has arrived. */
export async function transfer(cli: Cli, mode: Mode, parts: Transfer): Promise<Operation> {
  const { source, target, send, receive } = parts;
  if (mode === 'pull') {
    const { address, certificate } = await networkAddress(cli, source);
    const pending = await send({});
    const operation = `${address}/1.0/operations/${pending.id}`;
    const secrets = pending.operation.metadata;
    return cli.finish(receive({ type: 'migration', mode, operation, certificate, secrets }));
  }
  if (mode === 'push') return push(cli, parts, await networkAddress(cli, target));
  const from = await send({});
  const to = await receive({ type: 'migration', mode: 'push' });
  const ends = [
    { client: source.client, pending: from },
    { client: target.client, pending: to },
  ] as const;
  using _channels = await relayMigration(...ends, cli.signal);
  return await bothEnds(cli, from, to);
}

async function push(
  cli: Cli,
  { send, receive }: Transfer,
  { address, certificate }: Awaited<ReturnType<typeof networkAddress>>,
): Promise<Operation> {
  const to = await receive({ type: 'migration', mode: 'push' });
  const operation = `${address}/1.0/operations/${to.id}`;
  const from = await send({ target: { operation, certificate, secrets: to.operation.metadata } });
  return bothEnds(cli, from, to);
}

/** The end that failed first knows why; the other one only that the connection is gone. */
async function bothEnds(cli: Cli, from: PendingOperation, to: PendingOperation): Promise<Operation> {
  try {
    const [, arrived] = await Promise.all([from.wait(cli.signal), to.wait(cli.signal)]);
    return arrived;
  } finally {
    cli.endProgress();
  }
}
