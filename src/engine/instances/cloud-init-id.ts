// The id by which cloud-init tells a first boot: a new one makes it run again (lxd-engine-contract section 2.7).
import { randomUUID } from 'node:crypto';
import type { ConfigMap, DeviceMap } from '../types.ts';
import type { Expanded } from './expansion.ts';

export type CloudInitId = { readonly 'volatile.cloud-init.instance-id': string };

/** What cloud-init reads once. */
const READ = ['vendor-data', 'user-data', 'network-config'].flatMap((key) => [`cloud-init.${key}`, `user.${key}`]);

export function freshCloudInitId(): CloudInitId {
  return { 'volatile.cloud-init.instance-id': randomUUID() };
}

/** A new id when cloud-init has something else to do now, or the network that it has set up is called otherwise. */
export function changedCloudInitId(before: Expanded, after: Expanded, volatile: ConfigMap): CloudInitId | undefined {
  const isOther = READ.some((key) => (before.config[key] ?? '') !== (after.config[key] ?? ''));
  const names = new Set(nicNames(after.devices, volatile));
  const isGone = nicNames(before.devices, volatile).some((name) => !names.has(name));
  return isOther || isGone ? freshCloudInitId() : undefined;
}

/** In the container. */
function nicNames(devices: DeviceMap, volatile: ConfigMap): readonly string[] {
  return Object.entries(devices)
    .filter(([, { type }]) => type === 'nic')
    .map(([device, { name }]) => name || volatile[`volatile.${device}.name`] || device);
}
