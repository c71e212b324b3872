// Tunnels of a bridge to other hosts: what `tunnel.NAME.*` asks of the kernel.
import type { Host } from '#src/host/host.ts';
import type { GretapKind, VxlanKind } from '#src/host/links.ts';
import type { NetworkConfig } from '../driver.ts';

const GROUP = '239.0.0.1';

/** undefined: its settings do not yet say enough. */
export function tunnelRequest(
  tunnel: string,
  config: NetworkConfig,
  defaults: { readonly interface: string | undefined },
): GretapKind | VxlanKind | undefined {
  const option = (key: string): string => config[`tunnel.${tunnel}.${key}`] ?? '';
  const local = option('local');
  const remote = option('remote');
  if (option('protocol') === 'gre') {
    return local === '' || remote === '' ? undefined : { kind: 'gretap', local, remote };
  }
  if (option('protocol') !== 'vxlan') return undefined;
  const number = (key: string, fallback: number): number => (option(key) === '' ? fallback : Number(option(key)));
  const base = { kind: 'vxlan', id: number('id', 1), port: number('port', 0) } as const;
  if (local !== '' && remote !== '') return { ...base, local, remote };
  const parent = option('interface') === '' ? defaults.interface : option('interface');
  const group = option('group') === '' ? GROUP : option('group');
  return { ...base, group, ttl: number('ttl', 1), ...(parent !== undefined && { interface: parent }) };
}

/** The one that leads to everywhere. */
export async function defaultInterface(host: Host): Promise<string | undefined> {
  const route = (await host.links.routes()).find(({ destination }) => destination === '0.0.0.0/0');
  if (!route) return undefined;
  return (await host.links.list()).find(({ index }) => index === route.index)?.name;
}
