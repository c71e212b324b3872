// All that the virt driver must know to make an instance.
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { GuestSpec, SpawnFlavor, SpawnImage, SpawnSpec } from '#drivers/virt/driver.ts';
import { instanceName } from './instance-name.ts';
import type { BlockDevice } from '../volumes/block-devices.ts';
import { ephemeralSizes, swapSize } from '../volumes/ephemerals.ts';
import type { ComputeServices } from '../types.ts';

type Services = Pick<ComputeServices, 'tracker'> & { readonly config: Pick<ComputeServices['config'], 'build'> };

/** `blockDevices`: by which its ephemeral disks are divided; absent: it has none, whatever its flavor. */
export function spawnSpec(
  instance: NovaObject<'Instance'>,
  image: SpawnImage | null,
  services: Services,
  blockDevices?: readonly BlockDevice[],
): SpawnSpec {
  const { imageId: _id, flavor, ...guest } = guestSpec(instance, instance.get('flavor'), services);
  const ephemeralsGib = blockDevices ? ephemeralSizes(instance.get('flavor'), blockDevices) : [];
  const swapMib = swapSize(instance.get('flavor'), blockDevices ?? []);
  return { ...guest, flavor: { ...flavor, ephemeralsGib, swapMib }, image };
}

/** Of an instance whose root is there already. */
export function guestSpec(
  instance: NovaObject<'Instance'>,
  flavor: NovaObject<'Flavor'>,
  { config, tracker }: Services,
): GuestSpec {
  const name = instanceName(instance, config.build.instanceNameTemplate);
  return {
    uuid: instance.get('uuid'),
    name,
    displayName: instance.find('display_name') ?? name,
    hostname: instance.find('hostname') ?? name,
    projectId: instance.find('project_id') ?? '',
    userId: instance.find('user_id') ?? '',
    flavor: { ...spawnFlavor(flavor), cpuIds: tracker.cpusFor(instance.get('uuid'), flavor.get('vcpus')) },
    imageId: instance.find('image_ref') ?? '',
  };
}

export function spawnFlavor(flavor: NovaObject<'Flavor'>, ephemeralsGib: readonly number[] = []): SpawnFlavor {
  return {
    vcpus: flavor.get('vcpus'),
    cpuIds: null,
    memoryMib: flavor.get('memory_mb'),
    rootGib: flavor.get('root_gb'),
    ephemeralsGib,
    swapMib: flavor.get('swap'),
    extraSpecs: flavor.find('extra_specs') ?? {},
  };
}
