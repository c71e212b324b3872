// A spawn as the body of the request that creates the instance.
import type { DeviceMap, InstancesPost, StringMap } from '#src/client/wire.ts';
import { parse as parseYaml } from 'yaml';
import type { SpawnFlavor, SpawnNic, SpawnSpec } from '../driver.ts';
import { marksOf } from './marks.ts';

export interface BodyOptions {
  readonly fingerprint: string;
  readonly pool: string;
  readonly profiles: readonly string[];
  /** Give the root disk the flavor's size. */
  readonly rootQuota: boolean;
  /** The server knows cloud-init.* keys. */
  readonly cloudInitKeys: boolean;
}

export function instanceBody(spec: SpawnSpec, nics: readonly SpawnNic[], options: BodyOptions): InstancesPost {
  return {
    name: spec.name,
    type: 'container',
    ephemeral: false,
    profiles: options.profiles,
    description: spec.displayName,
    config: {
      'boot.autostart': 'false', // Nova decides after a boot of the host (resume_guests_state_on_host_boot)
      ...flavorLimits(spec.flavor),
      // What cloud-init looks for in the environment of init to find OpenStack's metadata service from a container.
      'environment.product_name': 'OpenStack Nova',
      ...cloudInit(spec, options.cloudInitKeys),
      ...marksOf(spec),
    },
    devices: { root: rootDisk(spec.flavor, options), ...nicDevices(nics) },
    source: { type: 'image', fingerprint: options.fingerprint },
  };
}

/** What of a flavor is configuration. */
export function flavorLimits({ vcpus, memoryMib }: SpawnFlavor): StringMap {
  return { 'limits.cpu': String(vcpus), 'limits.memory': `${memoryMib}MiB` };
}

export function rootDisk(flavor: SpawnFlavor, { pool, rootQuota }: Pick<BodyOptions, 'pool' | 'rootQuota'>): StringMap {
  const disk = { type: 'disk', path: '/', pool };
  return rootQuota && flavor.rootGib > 0 ? { ...disk, size: `${flavor.rootGib}GiB` } : disk;
}

export function nicDevices(nics: readonly SpawnNic[]): DeviceMap {
  return Object.fromEntries(nics.map((nic) => [nic.guestInterface, nicDevice(nic)]));
}

function nicDevice({ hostInterface, guestInterface, macAddress, mtu }: SpawnNic): StringMap {
  const nic = { type: 'nic', nictype: 'physical', parent: hostInterface, name: guestInterface, hwaddr: macAddress };
  return mtu === undefined ? nic : { ...nic, mtu: String(mtu) };
}

function cloudInit(spec: SpawnSpec, hasKeys: boolean): StringMap {
  // Later keys win over those that the engine writes itself: the instance is Nova's, whatever the container is called.
  const metadata = `instance-id: ${spec.uuid}\nlocal-hostname: ${spec.hostname}\n`;
  const userData = decodeUserData(spec.userData);
  if (userData === undefined) return { 'user.meta-data': metadata };
  const key = hasKeys && isAcceptedCloudConfig(userData) ? 'cloud-init.user-data' : 'user.user-data';
  return { 'user.meta-data': metadata, [key]: userData };
}

/** Undefined for none, and for what cannot be a config value (compressed data): the metadata service still has it. */
function decodeUserData(userData: string | null): string | undefined {
  if (userData === null || userData === '') return undefined;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(userData, 'base64'));
    return text.includes('\0') ? undefined : text;
  } catch {
    return undefined;
  }
}

/** The engine refuses broken YAML under cloud-init.*, where Nova boots the instance and lets cloud-init complain. */
function isAcceptedCloudConfig(text: string): boolean {
  if (!text.startsWith('#cloud-config\n')) return true;
  try {
    parseYaml(text);
    return true;
  } catch {
    return false;
  }
}
