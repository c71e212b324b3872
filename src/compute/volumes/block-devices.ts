// Volumes among the block devices that Nova has written down for an instance.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { VolumeConnection } from '#drivers/volume/driver.ts';

export type BlockDevice = NovaObject<'BlockDeviceMapping'>;
type Dict = Readonly<Record<string, unknown>>;

export async function blockDevicesOf(
  { conductor, context }: { readonly conductor: Conductor; readonly context: RequestContext },
  instanceUuid: string,
): Promise<readonly BlockDevice[]> {
  const call = { object: 'BlockDeviceMappingList', method: 'get_by_instance_uuid', args: [instanceUuid] } as const;
  return expectList(await conductor.classMethod(context, call), 'BlockDeviceMappingList');
}

export function volumesAmong(devices: readonly BlockDevice[]): readonly BlockDevice[] {
  return devices.filter((device) => device.find('destination_type') === 'volume');
}

/** As Cinder gives it, where everything is on one level, and as older versions did. null: the volume is not connected. */
export function connectionOf(info: Dict): VolumeConnection | null {
  const { driver_volume_type: type, data, connector: _connector, ...rest } = info;
  if (typeof type !== 'string' || type === '') return null;
  return { type, data: isDict(data) ? data : rest };
}

/** What Nova keeps of a connection, for this and other programs. */
export function connectionText(
  { type, data }: VolumeConnection,
  of: { readonly volumeId: string; readonly instanceUuid: string; readonly isMultiattach: boolean },
): string {
  return JSON.stringify({
    driver_volume_type: type,
    data,
    status: 'reserved',
    instance: of.instanceUuid,
    attached_at: '',
    detached_at: '',
    serial: of.volumeId,
    ...(of.isMultiattach && { multiattach: true }),
  });
}

/** null: never connected. */
export function keptConnection(device: BlockDevice): VolumeConnection | null {
  const text = device.find('connection_info') ?? '';
  if (text === '') return null;
  const info: unknown = JSON.parse(text);
  return isDict(info) ? connectionOf(info) : null;
}

function isDict(value: unknown): value is Dict {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
