// What instances may ask about themselves (lxd-engine-contract section 2.11): who asks, what it may see, and what it is told of changes.
import { readKernelFile } from '#src/host/kernel-files.ts';
import type { EngineDatabase } from '../db/database.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { wantsDevlxd } from './devlxd-mount.ts';
import { expander, type Expanded } from './expansion.ts';
import type { Supervisor } from './supervisor.ts';
import { parseBoolean } from './values.ts';

export interface DevlxdEvent {
  readonly type: 'config' | 'device';
  readonly timestamp: string;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export type DevlxdListener = (event: DevlxdEvent) => void;

/** An instance that asks. */
export interface DevlxdGuest {
  readonly record: InstanceRecord;
  readonly expanded: Expanded;
  /** security.devlxd. */
  readonly allowed: boolean;
  /** security.devlxd.images. */
  readonly mayExportImages: boolean;
}

const VISIBLE = /^(user|cloud-init)\./;

export class Devlxd {
  readonly #database: EngineDatabase;
  readonly #supervisor: Pick<Supervisor, 'lives'>;
  readonly #listeners = new Map<number, Set<DevlxdListener>>();

  constructor(database: EngineDatabase, supervisor: Pick<Supervisor, 'lives'>) {
    this.#database = database;
    this.#supervisor = supervisor;
  }

  /** The instance that the process belongs to; undefined: none, or it cannot be told. */
  guestOf(pid: number): DevlxdGuest | undefined {
    const group = containerGroup(pid);
    if (group === undefined) return undefined;
    const found = this.#supervisor.lives().filter((life) => {
      return life.pid !== undefined && containerGroup(life.pid) === group;
    });
    const [life, second] = found;
    if (!life || second) return undefined;
    return this.guest(life.key.project, life.key.name);
  }

  guest(project: string, name: string): DevlxdGuest | undefined {
    const record = this.#database.instances.find(project, name);
    if (!record) return undefined;
    const expanded = expander(this.#database)(record);
    return {
      record,
      expanded,
      allowed: wantsDevlxd(expanded.config),
      mayExportImages: parseBoolean(expanded.config['security.devlxd.images']),
    };
  }

  subscribe({ id }: InstanceRecord, listener: DevlxdListener): Disposable {
    const listeners = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, listeners.add(listener));
    return {
      [Symbol.dispose]: () => {
        listeners.delete(listener);
        if (listeners.size === 0) this.#listeners.delete(id);
      },
    };
  }

  /** Tells those who listen in the instance what is different. */
  changed({ id }: InstanceRecord, before: Expanded, after: Expanded): void {
    const listeners = this.#listeners.get(id);
    if (!listeners) return;
    const timestamp = new Date().toISOString();
    for (const event of [
      ...configEvents(before.config, after.config),
      ...deviceEvents(before.devices, after.devices),
    ]) {
      for (const listener of listeners) listener({ ...event, timestamp });
    }
  }
}

/** Keys that an instance may see of its configuration, sorted. */
export function visibleKeys(config: ConfigMap): readonly string[] {
  return Object.keys(config)
    .filter((key) => VISIBLE.test(key))
    .sort();
}

export function isVisible(key: string): boolean {
  return VISIBLE.test(key);
}

/** The document for cloud-init. */
export function metaData({ record, expanded }: DevlxdGuest): string {
  const id = record.config['volatile.cloud-init.instance-id'] ?? '';
  const own = expanded.config['user.meta-data'] ?? '';
  return `#cloud-config\ninstance-id: ${id}\nlocal-hostname: ${record.name}\n${own}`;
}

/** Devices with the MAC addresses that nics were given. */
export function visibleDevices({ record, expanded }: DevlxdGuest): DeviceMap {
  return Object.fromEntries(
    Object.entries(expanded.devices).map(([name, device]) => {
      const hwaddr = record.config[`volatile.${name}.hwaddr`];
      const lacks = device['type'] === 'nic' && (device['hwaddr'] ?? '') === '' && hwaddr !== undefined;
      return [name, lacks ? { ...device, hwaddr } : device];
    }),
  );
}

type Change = Omit<DevlxdEvent, 'timestamp'>;

function configEvents(before: ConfigMap, after: ConfigMap): readonly Change[] {
  const keys = [...new Set([...visibleKeys(before), ...visibleKeys(after)])].filter(
    (key) => before[key] !== after[key],
  );
  return keys.map((key) => ({
    type: 'config',
    metadata: { key, old_value: before[key] ?? '', value: after[key] ?? '' },
  }));
}

function deviceEvents(before: DeviceMap, after: DeviceMap): readonly Change[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((name): Change[] => {
    const old = before[name];
    const next = after[name];
    if (old && next && sameOptions(old, next)) return [];
    const action = old && next ? 'updated' : next ? 'added' : 'removed';
    return [{ type: 'device', metadata: { action, name, config: next ?? old } }];
  });
}

function sameOptions(old: ConfigMap, next: ConfigMap): boolean {
  return [...Object.keys(old), ...Object.keys(next)].every((option) => old[option] === next[option]);
}

/** The first container on the way from the root: what is made below it is the container's own, and may be called anything. */
function containerGroup(pid: number): string | undefined {
  return /^\d+:[^:]*:(\/(?:[^/\n]+\/)*?lxc\.payload\.[^/\n]+)/m.exec(readKernelFile(`/proc/${pid}/cgroup`) ?? '')?.[1];
}
