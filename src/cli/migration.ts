// Copies between engines: what the target needs to fetch from the source.
import type { EngineClient } from '#src/client/client.ts';
import type { PendingOperation } from '#src/client/operations.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from './cli.ts';

/** Where another engine reaches this one. AppError 'invalid' when it listens nowhere on the network. */
export async function networkAddress(
  cli: Cli,
  { client, remote }: { readonly client: EngineClient; readonly remote: string },
): Promise<{ readonly address: string; readonly certificate: string }> {
  const { environment } = await client.server(cli.signal);
  const addresses = (environment?.['addresses'] ?? []) as readonly string[];
  const { addr } = cli.remotes.get(remote);
  const address = addr.startsWith('https://') ? addr : addresses.map((text) => `https://${text}`)[0];
  const certificate = environment?.['certificate'];
  if (address !== undefined && typeof certificate === 'string') return { address, certificate };
  throw new AppError(
    'invalid',
    'The source server is not listening on the network; set core.https_address there (lighter config set core.https_address=:8443)',
  );
}

/** The source of a request to the target; `pending` is the migration that the source offers. */
export async function pullSource(
  cli: Cli,
  source: { readonly client: EngineClient; readonly remote: string },
  pending: PendingOperation,
): Promise<object> {
  const { address, certificate } = await networkAddress(cli, source);
  const operation = `${address}/1.0/operations/${pending.id}`;
  return { type: 'migration', mode: 'pull', operation, certificate, secrets: pending.operation.metadata };
}
