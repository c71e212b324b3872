// Volumes among the block devices that Nova has written down for an instance.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { VolumeConnection } from '#drivers/volume/driver.ts';

export type BlockDevice = NovaObject<'BlockDeviceMapping'>;
type Dict = Readonly<Record<string, unknown>>;

/** Our own among what Nova keeps of a connection. */
const CONNECTED_AS = 'lightervisor_connected_as';

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

/** The same, of a volume that Cinder calls `volumeId` from now on. */
export function renamedConnection(text: string, volumeId: string): string {
  const info = infoOf(text);
  const { serial: connected } = info;
  return JSON.stringify({
    ...info,
    serial: volumeId,
    volume_id: volumeId,
    ...(connected !== volumeId && { [CONNECTED_AS]: connected }),
  });
}

/** The name that a connected volume had when it was connected; null: the one that it still has. */
export function connectedAs(device: BlockDevice): string | null {
  const name = infoOf(device.find('connection_info'))[CONNECTED_AS];
  return typeof name === 'string' ? name : null;
}

/** null: never connected. */
export function keptConnection(device: BlockDevice): VolumeConnection | null {
  const info = infoOf(device.find('connection_info'));
  return Object.keys(info).length === 0 ? null : connectionOf(info);
}

/** What Nova keeps of a connection, read; nothing when it keeps none. */
export function infoOf(text: string | null | undefined): Dict {
  if (!text) return {};
  const info: unknown = JSON.parse(text);
  return isDict(info) ? info : {};
}

function isDict(value: unknown): value is Dict {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
