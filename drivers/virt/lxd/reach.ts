// Where the engines of other hosts reach this one: found, and arranged for, when the driver starts.
import { isIPv6 } from 'node:net';
import type { EngineClient } from '#src/client/client.ts';
import type { Server } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { LxdDriverOptions } from './options.ts';

export type Reach =
  | { readonly address: string; readonly certificate: string }
  /** Why nobody reaches it. */
  | { readonly reason: string };

type ReachOptions = Pick<LxdDriverOptions, 'migrationAddress' | 'myIp'>;

/**
 * The wanted address is one on which the engine listens; an engine that listens nowhere is told to. AppError 'invalid' when it
 * listens elsewhere: its address is the operator's to change.
 */
export async function findReach(
  client: Pick<EngineClient, 'server' | 'request'>,
  { migrationAddress, myIp }: ReachOptions,
  signal: AbortSignal,
): Promise<Reach> {
  let server = await client.server(signal);
  if (migrationAddress === null) return reachOf(server, ownAddress(server, myIp));
  if (listenAddress(server) === '') {
    await client.request('PATCH', '/1.0', { body: { config: { 'core.https_address': migrationAddress } }, signal });
    server = await client.server(signal);
  }
  const listens = listenAddress(server);
  if (!covers(listens, migrationAddress)) {
    const what = `migration_address ${migrationAddress} of [lxd] is not where the engine listens`;
    throw new AppError('invalid', `${what} (core.https_address is ${listens}): change one of them`);
  }
  return reachOf(server, migrationAddress);
}

function reachOf({ environment }: Server, address: string | undefined): Reach {
  const certificate = environment?.['certificate'];
  if (address === undefined || typeof certificate !== 'string') {
    return { reason: 'the container engine listens on no address of this host: set migration_address in [lxd]' };
  }
  return { address, certificate };
}

function ownAddress({ environment }: Server, myIp: string | undefined): string | undefined {
  const addresses = environment?.['addresses'];
  if (myIp === undefined || !Array.isArray(addresses)) return undefined;
  const prefix = isIPv6(myIp) ? `[${myIp}]:` : `${myIp}:`;
  return addresses.map(String).find((address) => address.startsWith(prefix));
}

function listenAddress({ config }: Server): string {
  const value = config?.['core.https_address'];
  return typeof value === 'string' ? value : '';
}

/** An address without a host is every address, one without a port has LXD's. */
function covers(listens: string, wanted: string): boolean {
  const [own, other] = [partsOf(listens), partsOf(wanted)];
  return own.port === other.port && (['', '*', '::', '0.0.0.0'].includes(own.host) || own.host === other.host);
}

function partsOf(text: string): { readonly host: string; readonly port: string } {
  if (isIPv6(text)) return { host: text, port: '8443' };
  const { v6, name, port } = /^(?:\[(?<v6>[^\]]*)\]|(?<name>[^:]*))(?::(?<port>\d+))?$/.exec(text)?.groups ?? {};
  return { host: v6 ?? name ?? text, port: port ?? '8443' };
}
