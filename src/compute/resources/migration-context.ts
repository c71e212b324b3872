// What a move changes of the devices of an instance (contract section 4.7): containers have none, so both sides are alike.
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';

export function migrationContext(
  instance: NovaObject<'Instance'>,
  migration: NovaObject<'Migration'>,
): NovaObject<'MigrationContext'> {
  const numa = instance.find('numa_topology') ?? null;
  const requests = instance.find('pci_requests') ?? null;
  return createObject('MigrationContext', {
    instance_uuid: instance.get('uuid'),
    migration_id: migration.get('id'),
    new_numa_topology: numa,
    old_numa_topology: numa,
    new_pci_devices: createObject('PciDeviceList', { objects: [] }),
    old_pci_devices: createObject('PciDeviceList', { objects: [] }),
    new_pci_requests: requests,
    old_pci_requests: requests,
    new_resources: null,
    old_resources: null,
  });
}
