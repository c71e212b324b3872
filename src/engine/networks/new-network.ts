// What is asked of a network that is to be made, before anything is looked at.
import type { NetworkDriver } from '#drivers/network/driver.ts';
import { interfaceName } from '#drivers/network/common/checks.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineDatabase } from '../db/database.ts';
import { DEFAULT_PROJECT } from '../db/projects.ts';
import type { ConfigMap } from '../types.ts';
import { networkDriverOf } from './network-drivers.ts';

export interface WantedNetwork {
  /** That holds it. */
  readonly project: string;
  readonly name: string;
  /** Empty: the usual one. */
  readonly type: string;
  readonly config: ConfigMap;
}

export interface NewNetworkParts {
  readonly drivers: Readonly<Record<string, NetworkDriver>>;
  readonly database: EngineDatabase;
}

/** The driver for it. AppError with LXD's text. */
export function checkNewNetwork({ drivers, database }: NewNetworkParts, wanted: WantedNetwork): NetworkDriver {
  const { project, name, config } = wanted;
  if (name === '') throw new AppError('invalid', 'No name provided');
  const complaint = interfaceName(name);
  if (complaint !== undefined) throw new AppError('invalid', complaint);
  checkLimit(database, project);
  const isDefault = project === DEFAULT_PROJECT;
  // A project with networks of its own has no part of the host's: only overlays.
  const driver = networkDriverOf(drivers, wanted.type === '' ? (isDefault ? 'bridge' : 'ovn') : wanted.type);
  if (!isDefault) throw new AppError('invalid', 'Network type does not support non-default projects');
  if (database.networks.find(project, name)) throw new AppError('invalid', 'The network already exists');
  try {
    driver.validate(name, config);
  } catch (cause) {
    if (!(cause instanceof AppError) || cause.kind !== 'invalid') throw cause;
    throw new AppError('internal', cause.message, { cause });
  }
  return driver;
}

function checkLimit({ projects, networks }: EngineDatabase, project: string): void {
  const limit = projects.get(project).config['limits.networks'] ?? '';
  if (limit === '' || networks.list(project).length < Number(limit)) return;
  throw new AppError('invalid', 'Networks limit has been reached for project');
}
