// The unversioned payload `compute.instance.*` (nova-compute-contract appendix B.1).
import { messageOf } from '#src/lib/errors.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import { faultOf } from '../exceptions.ts';
import { fixedIpToWire, fixedIpsOf, parseNetworkInfo } from '../network-model.ts';
import type { NovaObject } from '../objects/object.ts';
import { wireTime } from '../objects/wire.ts';
import { copyFields, sameFields } from './fields.ts';

type Dict = Readonly<Record<string, unknown>>;

export interface LegacyDetails {
  readonly imageUrl: string;
  readonly withFixedIps: boolean;
  readonly error?: unknown;
  readonly extra?: Dict;
}

/** All keys always; needs flavor, metadata and system_metadata to be loaded, and the info cache for `fixed_ips`. */
export function legacyPayload(instance: NovaObject<'Instance'>, details: LegacyDetails): Dict {
  return {
    ...identityOf(instance),
    ...flavorOf(instance),
    ...placeAndTimes(instance),
    ...stateOf(instance, details.imageUrl),
    ...(details.withFixedIps ? { fixed_ips: fixedIpsIn(instance) } : {}),
    image_meta: imageMetaOf(instance.get('system_metadata')),
    metadata: instance.get('metadata'),
    ...details.extra,
    ...(details.error === undefined ? {} : errorKeys(details.error)),
  };
}

/** What the X wrapper says when an RPC method fails: no arguments but the instance, for others may be secret. */
export function legacyFailure(error: unknown, instanceUuid: string | undefined): Dict {
  return { exception: textOf(error), args: instanceUuid === undefined ? {} : { instance: { uuid: instanceUuid } } };
}

function identityOf(instance: NovaObject<'Instance'>): Dict {
  return copyFields(instance, {
    tenant_id: 'project_id',
    user_id: 'user_id',
    instance_id: 'uuid',
    display_name: 'display_name',
    reservation_id: 'reservation_id',
    hostname: 'hostname',
    instance_type_id: 'instance_type_id',
    architecture: 'architecture',
  });
}

function flavorOf(instance: NovaObject<'Instance'>): Dict {
  const flavor = instance.get('flavor');
  return {
    instance_type: flavor.find('name') ?? '',
    instance_flavor_id: flavor.find('flavorid') ?? '',
    memory_mb: flavor.get('memory_mb'),
    disk_gb: flavor.get('root_gb') + flavor.get('ephemeral_gb'),
    vcpus: flavor.get('vcpus'),
    root_gb: flavor.get('root_gb'),
    ephemeral_gb: flavor.get('ephemeral_gb'),
  };
}

function placeAndTimes(instance: NovaObject<'Instance'>): Dict {
  return {
    ...sameFields(instance, ['host', 'node', 'availability_zone']),
    cell_name: instance.find('cell_name') ?? '',
    created_at: pythonTime(instance.find('created_at')),
    terminated_at: timeOrEmpty(instance.find('terminated_at')),
    deleted_at: timeOrEmpty(instance.find('deleted_at')),
    launched_at: timeOrEmpty(instance.find('launched_at')),
  };
}

function stateOf(instance: NovaObject<'Instance'>, imageUrl: string): Dict {
  return {
    ...sameFields(instance, ['os_type', 'kernel_id', 'ramdisk_id', 'access_ip_v4', 'access_ip_v6']),
    image_ref_url: imageUrl,
    state: instance.find('vm_state') ?? null,
    state_description: instance.find('task_state') ?? '',
    // Consumers expect an empty text where there is no progress.
    progress: instance.find('progress') || '',
  };
}

function fixedIpsIn(instance: NovaObject<'Instance'>): readonly Dict[] {
  const vifs = parseNetworkInfo(instance.find('info_cache')?.find('network_info') ?? null);
  return vifs.flatMap((vif) =>
    fixedIpsOf(vif).map((ip) => ({ ...fixedIpToWire(ip), label: vif.network?.label ?? null, vif_mac: vif.address })),
  );
}

const IMAGE_PREFIX = 'image_';

function imageMetaOf(systemMetadata: Readonly<Record<string, string | null>>): Dict {
  return Object.fromEntries(
    Object.entries(systemMetadata)
      .filter(([key]) => key.startsWith(IMAGE_PREFIX))
      .map(([key, value]) => [key.slice(IMAGE_PREFIX.length), value]),
  );
}

function errorKeys(error: unknown): Dict {
  const { message, code } = faultOf(error);
  return { exception: textOf(error), message, code };
}

function textOf(error: unknown): string {
  return error instanceof RemoteError ? error.remoteMessage : messageOf(error);
}

/** As Python prints a datetime with a zone. */
function pythonTime(date: Date | null | undefined): string {
  return date ? `${date.toISOString().slice(0, 19).replace('T', ' ')}+00:00` : 'None';
}

function timeOrEmpty(date: Date | null | undefined): string {
  return date ? wireTime(date) : '';
}
