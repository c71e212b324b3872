// A new instance as the body of the request that creates the instance.
import type { DeviceMap, InstancesPost, InstanceSource, StringMap } from '#src/client/wire.ts';
import type { CloudInitData, GuestSpec, SpawnFlavor, SpawnNic } from '../driver.ts';
import { FLAVOR_KEYS, type FlavorPolicy, flavorSettings } from './extra-specs.ts';
import { marksOf } from './marks.ts';

export interface BodyOptions {
  readonly source: InstanceSource;
  readonly pool: string;
  readonly profiles: readonly string[];
  /** Give the root disk the flavor's size. */
  readonly rootQuota: boolean;
  readonly policy: FlavorPolicy;
  readonly metadataService: boolean;
  /** The engine can keep a paused instance from answering, as a stock hypervisor's is. */
  readonly silentPauses: boolean;
}

export function instanceBody(spec: GuestSpec, nics: readonly SpawnNic[], options: BodyOptions): InstancesPost {
  return {
    name: spec.name,
    type: 'container',
    ephemeral: false,
    profiles: options.profiles,
    description: spec.displayName,
    config: {
      'boot.autostart': 'false', // Nova decides after a boot of the host (resume_guests_state_on_host_boot)
      ...flavorConfig(spec.flavor, options.policy),
      // What cloud-init looks for in the environment of init to find OpenStack's metadata service from a container.
      ...(options.metadataService && { 'environment.product_name': 'OpenStack Nova' }),
      ...(options.silentPauses && { 'lighter.pause.silent': 'true' }),
      ...marksOf(spec),
    },
    devices: { root: rootDisk(spec.flavor, options), ...nicDevices(nics) },
    source: options.source,
  };
}

/** What of a flavor is configuration. */
export function flavorConfig(flavor: SpawnFlavor, policy: FlavorPolicy): StringMap {
  const { vcpus, cpuIds, memoryMib, swapMib } = flavor;
  return {
    // a single number would be how many
    'limits.cpu': cpuIds === null ? String(vcpus) : cpuIds.map((id) => `${id}-${id}`).join(','),
    'limits.memory': `${memoryMib}MiB`,
    // beside its memory, which is all that it has otherwise
    ...(swapMib > 0 && { 'limits.memory.swap': `${swapMib}MiB` }),
    ...flavorSettings(flavor, policy).config,
  };
}

/** The configuration of an instance with another flavor. */
export function withFlavor(config: StringMap, flavor: SpawnFlavor, policy: FlavorPolicy): StringMap {
  const kept = Object.entries(config).filter(([key]) => !FLAVOR_KEYS.includes(key));
  return { ...Object.fromEntries(kept), ...flavorConfig(flavor, policy) };
}

export function rootDisk(
  flavor: SpawnFlavor,
  { pool, rootQuota, policy }: Pick<BodyOptions, 'pool' | 'rootQuota' | 'policy'>,
): StringMap {
  const disk = { type: 'disk', path: '/', pool, ...flavorSettings(flavor, policy).rootDisk };
  return rootQuota && flavor.rootGib > 0 ? { ...disk, size: `${flavor.rootGib}GiB` } : disk;
}

export function nicDevices(nics: readonly SpawnNic[]): DeviceMap {
  return Object.fromEntries(nics.map((nic) => [nic.guestInterface, nicDevice(nic)]));
}

function nicDevice({ hostInterface, guestInterface, macAddress, mtu }: SpawnNic): StringMap {
  const nic = { type: 'nic', nictype: 'physical', parent: hostInterface, name: guestInterface, hwaddr: macAddress };
  return mtu === undefined ? nic : { ...nic, mtu: String(mtu) };
}

/**
 * user.* and not cloud-init.*: templates of all images and cloud-init itself read them, and the engine takes them as they are
 * (it refuses broken YAML under cloud-init.*, where Nova boots the instance and lets cloud-init complain).
 */
export function cloudInitConfig({ metaData, userData, vendorData, networkConfig }: CloudInitData): StringMap {
  return {
    'user.meta-data': metaData,
    ...(userData !== null && { 'user.user-data': userData }),
    ...(vendorData !== null && { 'user.vendor-data': vendorData }),
    ...(networkConfig !== null && { 'user.network-config': networkConfig }),
  };
}
