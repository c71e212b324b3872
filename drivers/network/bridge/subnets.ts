// Networks for bridges that ask for one: private ones that nothing on this host and, as far as a ping can tell, nobody beyond uses.
import { randomBytes, randomInt } from 'node:crypto';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import { type IpNetwork, networkText, overlap, parseIp, parseNetwork } from '#src/lib/ip.ts';

const TRIES = 100;
const PING_MS = 3000;

/** "10.77.3.1/24" or "fd42:…::1/64". AppError with LXD's text when none was found. */
export async function freeSubnet(host: Host, family: 4 | 6, signal: AbortSignal): Promise<string> {
  const used = await usedNetworks(host);
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const candidate = family === 4 ? random4() : random6();
    if (used.some((network) => overlap(network, candidate))) continue;
    if (family === 4 && (await answers(host, candidate, signal))) continue;
    return networkText(candidate);
  }
  throw new AppError('internal', 'Failed to automatically find an unused network subnet');
}

function random4(): IpNetwork {
  const text = `10.${randomInt(255)}.${randomInt(255)}.1`;
  return { address: parseIp(text) ?? { family: 4, value: 0n }, prefix: 24 };
}

function random6(): IpNetwork {
  const groups = Array.from({ length: 3 }, () => randomBytes(2).toString('hex'));
  return { address: parseIp(`fd42:${groups.join(':')}::1`) ?? { family: 6, value: 0n }, prefix: 64 };
}

/** Default routes lead to everything and use nothing. */
async function usedNetworks(host: Host): Promise<readonly IpNetwork[]> {
  const routes = (await host.links.routes()).map(({ destination }) => destination);
  const addresses = (await host.links.addresses()).map(({ address }) => address);
  return [...routes, ...addresses].flatMap((text) => {
    const network = parseNetwork(text);
    return network && network.prefix > 0 ? [network] : [];
  });
}

/** Only asked when there is a way beyond this host. */
async function answers(host: Host, { address }: IpNetwork, signal: AbortSignal): Promise<boolean> {
  const hasWay = (await host.links.routes()).some(({ destination }) => destination === '0.0.0.0/0');
  if (!hasWay) return false;
  const target = networkText({ address, prefix: 32 }).split('/')[0] ?? '';
  try {
    await host.run(['ping', '-n', '-q', '-c', '1', '-W', '1', target], { signal, timeoutMs: PING_MS });
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}
