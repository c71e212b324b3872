// All that the virt driver must know to make an instance.
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { SpawnFlavor, SpawnImage, SpawnSpec } from '#drivers/virt/driver.ts';
import { instanceName } from './instance-name.ts';

export function spawnSpec(
  instance: NovaObject<'Instance'>,
  image: SpawnImage,
  { instanceNameTemplate }: { readonly instanceNameTemplate: string },
): SpawnSpec {
  const name = instanceName(instance, instanceNameTemplate);
  return {
    uuid: instance.get('uuid'),
    name,
    displayName: instance.find('display_name') ?? name,
    hostname: instance.find('hostname') ?? name,
    projectId: instance.find('project_id') ?? '',
    userId: instance.find('user_id') ?? '',
    flavor: spawnFlavor(instance.get('flavor')),
    image,
  };
}

export function spawnFlavor(flavor: NovaObject<'Flavor'>): SpawnFlavor {
  return {
    vcpus: flavor.get('vcpus'),
    memoryMib: flavor.get('memory_mb'),
    rootGib: flavor.get('root_gb'),
    ephemeralGib: flavor.get('ephemeral_gb'),
    swapMib: flavor.get('swap'),
    extraSpecs: flavor.find('extra_specs') ?? {},
  };
}
