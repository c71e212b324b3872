// Drivers of managed networks by type.
import { join } from 'node:path';
import type { NetworkDriver, NetworkModule } from '#drivers/network/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';

export interface DriverOptions {
  readonly context: Pick<EngineContext, 'host' | 'log' | 'paths'>;
  readonly modules: Readonly<Record<string, NetworkModule>>;
}

/** Known to LXD; what they need is not here. */
const OTHER_TYPES = new Set(['ovn', 'physical', 'sriov']);

export function networkDriversFor({ context, modules }: DriverOptions): Readonly<Record<string, NetworkDriver>> {
  const { host, log, paths } = context;
  const directory = join(paths.root, 'networks');
  return Object.fromEntries(
    Object.entries(modules).map(([type, module]) => [type, module.create({ host, log, directory })]),
  );
}

/** AppError 'invalid' with LXD's text for an unknown type. */
export function networkDriverOf(drivers: Readonly<Record<string, NetworkDriver>>, type: string): NetworkDriver {
  const driver = Object.hasOwn(drivers, type) ? drivers[type] : undefined;
  if (driver) return driver;
  if (OTHER_TYPES.has(type)) {
    throw new AppError('unsupported', `Networks of type "${type}" are not supported by this server`);
  }
  throw new AppError('invalid', 'Unknown driver');
}
