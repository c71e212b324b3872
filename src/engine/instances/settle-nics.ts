// Nics of a running container in the change of which a daemon was killed: as they are stored again.
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import type { DeviceDifferences } from './live-changes.ts';
import type { InstanceNics } from './nics.ts';

export interface UnsettledNics {
  readonly record: InstanceRecord;
  readonly wanted: DeviceMap;
  readonly stored: DeviceMap;
  /** Between what is stored and what was wanted, the other way round: what was added is `removed`. */
  readonly change: DeviceDifferences;
  /** Of the container's init. */
  readonly pid: number;
}

export interface SettleParts {
  readonly nics: InstanceNics;
  readonly instances: EngineContext['database']['instances'];
}

export async function settleNics(parts: SettleParts, what: UnsettledNics, signal: AbortSignal): Promise<void> {
  const { wanted, stored, change } = what;
  const ofNics = (devices: DeviceMap) => (name: string) => devices[name]?.['type'] === 'nic';
  for (const name of change.removed.filter(ofNics(wanted))) await takeOut(parts, what, name, signal);
  for (const name of change.added.filter(ofNics(stored))) await putBack(parts, what, name, signal);
  for (const name of change.updated.filter(ofNics(stored))) await undoChange(parts, what, name, signal);
}

function currentConfig({ instances }: SettleParts, { record }: UnsettledNics): ConfigMap {
  return instances.get(record.project, record.name).config;
}

/** Whatever of it is there; nobody has stored it. */
async function takeOut(parts: SettleParts, what: UnsettledNics, name: string, signal: AbortSignal): Promise<void> {
  const { record, wanted, stored, pid } = what;
  const config = currentConfig(parts, what);
  await parts.nics.unplug({ ...record, devices: wanted, config }, name, { pid, signal });
  if (stored[name] !== undefined) return;
  const kept = Object.entries(config).filter(([key]) => !key.startsWith(`volatile.${name}.`));
  parts.instances.update(record.id, { config: Object.fromEntries(kept) });
}

/** Whatever of it was gone. */
async function putBack(parts: SettleParts, what: UnsettledNics, name: string, signal: AbortSignal): Promise<void> {
  const { record, stored, pid } = what;
  const owner = { ...record, devices: stored, config: currentConfig(parts, what) };
  const remember = (names: ConfigMap): void => {
    parts.instances.update(record.id, { config: { ...currentConfig(parts, what), ...names } });
  };
  await parts.nics.unplug(owner, name, { pid, signal });
  await parts.nics.plug(owner, name, remember, { pid, signal });
}

async function undoChange(parts: SettleParts, what: UnsettledNics, name: string, signal: AbortSignal): Promise<void> {
  const owner = { ...what.record, config: currentConfig(parts, what) };
  await parts.nics.update({ ...owner, devices: what.wanted }, { ...owner, devices: what.stored }, name, signal);
}
