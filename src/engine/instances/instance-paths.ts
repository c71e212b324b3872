// Names and places of one instance outside the database.
import { join } from 'node:path';
import type { RuntimeContainer } from '#drivers/runtime/driver.ts';
import type { VolumeRef } from '#drivers/storage/driver.ts';
import type { ConfigMap, EnginePaths } from '../types.ts';
import { parseBoolean } from './values.ts';

/** Of an instance or a snapshot, in its directory; LXD's name. */
export const STATE = 'state';

export interface InstanceKey {
  readonly project: string;
  readonly name: string;
}

/** Of its volume, its container and its directories: unique on the host. */
export function hostName({ project, name }: InstanceKey): string {
  return project === 'default' ? name : `${project}_${name}`;
}

/** Its root, for the storage driver. */
export function rootVolume(key: InstanceKey): VolumeRef {
  return { kind: 'container', name: hostName(key) };
}

/** The same for a mount that may change its owners, unless the expanded configuration says that they stay. */
export function ownedVolume(key: InstanceKey, config: ConfigMap): VolumeRef {
  const keepsOwners = parseBoolean(config['security.protection.shift']);
  return keepsOwners ? { ...rootVolume(key), keepsOwners } : rootVolume(key);
}

export function lockKey({ project, name }: InstanceKey): string {
  return `instance/${project}/${name}`;
}

export interface InstancePaths {
  /** metadata.yaml, templates/ and our own notes. */
  readonly home: string;
  readonly metadata: string;
  readonly templates: string;
  /** Says what is being done to an instance whose row does not say it yet. */
  readonly transition: string;
  /** Digest of the settings that the running container was started with. */
  readonly started: string;
  /** Devices as a change of the running container is about to make them. */
  readonly liveChange: string;
  /** There while the instance is stopped only to be started again. */
  readonly startsAgain: string;
  /** Of the processes of an instance that does not run: CRIU's files. */
  readonly state: string;
  /** The same while it is being written. */
  readonly dumping: string;
  readonly logs: string;
  /** One directory per snapshot: metadata.yaml and templates/ as they were. */
  readonly snapshots: string;
  /** Leads to its directory in the pool, as LXD's. */
  readonly link: string;
  readonly container: RuntimeContainer;
}

export function instancePaths(paths: EnginePaths, key: InstanceKey): InstancePaths {
  const name = hostName(key);
  const home = join(paths.instances, name);
  const logs = join(paths.logs, name);
  return {
    home,
    metadata: join(home, 'metadata.yaml'),
    templates: join(home, 'templates'),
    transition: join(home, 'transition'),
    started: join(home, 'started'),
    liveChange: join(home, 'live-change'),
    startsAgain: join(home, 'starts-again'),
    state: join(home, STATE),
    dumping: join(home, 'dumping'),
    logs,
    snapshots: join(paths.snapshots, name),
    link: join(paths.containers, name),
    container: {
      name,
      configPath: join(logs, 'lxc.conf'),
      logPath: join(logs, 'lxc.log'),
      consoleLogPath: join(logs, 'console.log'),
    },
  };
}
