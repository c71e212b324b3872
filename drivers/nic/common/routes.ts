// ipv4.routes and ipv6.routes: networks behind a container, which the host reaches through an interface of its own.
import type { Host } from '#src/host/host.ts';
import { KernelError } from '#src/host/kernel.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NicDevice } from '../driver.ts';
import { chainName } from './firewall.ts';
import { listOption } from './nic-options.ts';

export const ROUTE_OPTIONS = ['ipv4.routes', 'ipv6.routes'];
export const EXTERNAL_ROUTE_OPTIONS = ['ipv4.routes.external', 'ipv6.routes.external'];

export function routesOf({ config }: NicDevice): readonly string[] {
  return [...ROUTE_OPTIONS, ...EXTERNAL_ROUTE_OPTIONS].flatMap((option) => listOption(config, option));
}

/** Routes on interfaces that several nics may share: what another has put there is not removed with a nic that wanted the same. */
export class NicRoutes {
  readonly #host: Host;
  readonly #foreign = new Set<string>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** AppError 'conflict' when the host has that route already. */
  async add(nic: NicDevice, link: string, destinations: readonly string[], table?: number): Promise<void> {
    for (const [index, destination] of destinations.entries()) {
      try {
        const route = { destination, interface: link, ...(table !== undefined && { table }) };
        await this.#host.links.addRoute({ ...route, protocol: 'boot', fresh: true });
      } catch (cause) {
        for (const other of destinations.slice(index)) this.#foreign.add(keyOf(nic, other, table));
        if (!(cause instanceof KernelError) || cause.errno !== 'EEXIST') throw cause;
        throw new AppError('conflict', `Failed adding route "${destination}": the host has it already`, { cause });
      }
    }
  }

  /** Those that are absent are not an error. */
  async remove(nic: NicDevice, link: string, destinations: readonly string[], table?: number): Promise<void> {
    for (const destination of destinations) {
      if (this.#foreign.delete(keyOf(nic, destination, table))) continue;
      const route = { destination, interface: link, ...(table !== undefined && { table }) };
      await this.#host.links.removeRoute({ ...route, protocol: 'boot' });
    }
  }

  async change(before: NicDevice, after: NicDevice, link: string): Promise<void> {
    const [was, is] = [routesOf(before), routesOf(after)];
    await this.remove(
      before,
      link,
      was.filter((route) => !is.includes(route)),
    );
    await this.add(
      after,
      link,
      is.filter((route) => !was.includes(route)),
    );
  }
}

function keyOf(nic: NicDevice, destination: string, table = 0): string {
  return `${chainName('route', nic)} ${destination} ${table}`;
}
