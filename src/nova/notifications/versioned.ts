// Versioned payloads `instance.*` and `compute.exception` (nova-compute-contract appendix B.3).
//
// Always the later version of each class: it only adds `shares`, and consumers go by the names of the fields.
import { asError } from '#src/lib/errors.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import type { RequestContext } from '../context.ts';
import { NovaException } from '../exceptions.ts';
import { fixedIpsOf, parseNetworkInfo } from '../network-model.ts';
import type { NovaObject } from '../objects/object.ts';
import type { Primitive } from '../objects/primitive.ts';
import { powerStateName } from '../states.ts';
import { wireTime } from '../objects/wire.ts';
import type { AuditPeriod } from './audit-period.ts';
import { copyFields, sameFields } from './fields.ts';

type Dict = Readonly<Record<string, unknown>>;
type Instance = NovaObject<'Instance'>;

export interface ActionDetails {
  readonly context: RequestContext;
  readonly error?: unknown;
  /** Null unless block devices are wanted in notifications. */
  readonly blockDevices: readonly NovaObject<'BlockDeviceMapping'>[] | null;
}

/** Needs flavor, metadata, system_metadata and info cache to be loaded. */
export function actionPayload(instance: Instance, details: ActionDetails): Primitive {
  return payload('InstanceActionPayload', '1.9', actionData(instance, details));
}

export function snapshotPayload(instance: Instance, imageId: string, details: ActionDetails): Primitive {
  const data = { ...actionData(instance, details), snapshot_image_id: imageId };
  return payload('InstanceActionSnapshotPayload', '1.10', data);
}

export function volumePayload(instance: Instance, volumeId: string, details: ActionDetails): Primitive {
  return payload('InstanceActionVolumePayload', '1.7', { ...actionData(instance, details), volume_id: volumeId });
}

export function volumeSwapPayload(
  instance: Instance,
  volumes: { readonly old: string; readonly new: string },
  details: ActionDetails,
): Primitive {
  const ids = { old_volume_id: volumes.old, new_volume_id: volumes.new };
  return payload('InstanceActionVolumeSwapPayload', '1.9', { ...actionData(instance, details), ...ids });
}

/** Needs trusted certificates as well. */
export function rebuildPayload(instance: Instance, details: ActionDetails): Primitive {
  const trusted = instance.find('trusted_certs')?.get('ids') ?? null;
  const data = { ...actionData(instance, details), trusted_image_certificates: trusted };
  return payload('InstanceActionRebuildPayload', '1.10', data);
}

/** `imageId`: the one that was asked for. */
export function rescuePayload(instance: Instance, imageId: string | null, details: ActionDetails): Primitive {
  return payload('InstanceActionRescuePayload', '1.4', { ...actionData(instance, details), rescue_image_ref: imageId });
}

export function resizePrepPayload(
  instance: Instance,
  flavor: NovaObject<'Flavor'> | null,
  details: ActionDetails,
): Primitive {
  const data = { ...actionData(instance, details), new_flavor: flavor && flavorPayload(flavor) };
  return payload('InstanceActionResizePrepPayload', '1.4', data);
}

/** What is told once in a while of an instance that is there. */
export function existsPayload(instance: Instance, { begin, end }: AuditPeriod, details: ActionDetails): Primitive {
  const { fault: _none, ...data } = actionData(instance, details);
  const period = { audit_period_beginning: wireTime(begin), audit_period_ending: wireTime(end) };
  const audit = payload('AuditPeriodPayload', '1.0', period);
  return payload('InstanceExistsPayload', '2.1', { ...data, audit_period: audit });
}

/** Needs key pairs, tags and trusted certificates as well. */
export function createPayload(instance: Instance, instanceName: string, details: ActionDetails): Primitive {
  return payload('InstanceCreatePayload', '1.13', {
    ...actionData(instance, details),
    keypairs: (instance.find('keypairs')?.get('objects') ?? []).map(keypairPayload),
    tags: (instance.find('tags')?.get('objects') ?? []).map((tag) => tag.get('tag')),
    trusted_image_certificates: instance.find('trusted_certs')?.get('ids') ?? null,
    instance_name: instanceName,
  });
}

export function exceptionPayload(error: unknown): Primitive {
  const { stack = '' } = asError(error);
  return payload('ExceptionPayload', '1.1', { ...describe(error), function_name: functionIn(stack), traceback: stack });
}

function describe(error: unknown): Dict {
  if (error instanceof NovaException) {
    return { module_name: 'nova.exception', exception: error.novaName, exception_message: error.message };
  }
  if (error instanceof RemoteError) {
    const { remoteModule, remoteClass, remoteMessage } = error;
    return { module_name: remoteModule, exception: remoteClass, exception_message: remoteMessage };
  }
  const { name, message } = asError(error);
  return { module_name: 'lightervisor', exception: name, exception_message: message };
}

/** The function that threw, from the first frame of a stack. */
function functionIn(stack: string): string {
  return /^\s+at (?:async )?(?:new )?([\w.#<>$ ]+) \(/m.exec(stack)?.[1] ?? 'unknown';
}

function actionData(instance: Instance, { context, error, blockDevices }: ActionDetails): Dict {
  return {
    ...descriptionOf(instance),
    ...timesAndStates(instance),
    flavor: flavorPayload(instance.get('flavor')),
    ip_addresses: ipPayloads(instance),
    block_devices: blockDevices?.filter((bdm) => bdm.find('destination_type') === 'volume').map(bdmPayload) ?? null,
    metadata: instance.get('metadata'),
    locked_reason: instance.get('system_metadata')['locked_reason'] ?? null,
    ...initiator(context),
    shares: [],
    fault: error === undefined ? null : exceptionPayload(error),
  };
}

function descriptionOf(instance: Instance): Dict {
  return {
    ...sameFields(instance, [
      'uuid',
      'user_id',
      'reservation_id',
      'display_name',
      'display_description',
      'host',
      'node',
    ]),
    ...sameFields(instance, ['os_type', 'architecture', 'availability_zone', 'key_name', 'kernel_id', 'ramdisk_id']),
    ...copyFields(instance, { tenant_id: 'project_id', host_name: 'hostname', image_uuid: 'image_ref' }),
  };
}

function timesAndStates(instance: Instance): Dict {
  const powerState = instance.find('power_state') ?? null;
  return {
    ...sameFields(instance, ['created_at', 'launched_at', 'terminated_at', 'deleted_at', 'updated_at']),
    ...copyFields(instance, { state: 'vm_state', task_state: 'task_state', progress: 'progress' }),
    power_state: powerState === null ? null : (powerStateName(powerState) ?? null),
    locked: instance.find('locked') ?? false,
    auto_disk_config: instance.find('auto_disk_config') === true ? 'AUTO' : 'MANUAL',
  };
}

/** Background work has no request of a user: its id says nothing to consumers. */
function initiator(context: RequestContext): Dict {
  const { userId, projectId } = context;
  const isUsers = userId !== undefined && projectId !== undefined;
  return {
    request_id: isUsers ? context.requestId : null,
    action_initiator_user: userId ?? null,
    action_initiator_project: projectId ?? null,
  };
}

function flavorPayload(flavor: NovaObject<'Flavor'>): Primitive {
  return payload('FlavorPayload', '1.4', {
    ...sameFields(flavor, ['flavorid', 'name', 'description', 'memory_mb', 'vcpus', 'root_gb', 'ephemeral_gb', 'swap']),
    ...sameFields(flavor, ['rxtx_factor', 'vcpu_weight', 'disabled', 'is_public', 'extra_specs', 'projects']),
  });
}

function ipPayloads(instance: Instance): readonly Primitive[] {
  const vifs = parseNetworkInfo(instance.find('info_cache')?.find('network_info') ?? null);
  return vifs.flatMap((vif) =>
    fixedIpsOf(vif).map((ip) =>
      payload('IpPayload', '1.0', {
        label: vif.network?.label ?? null,
        mac: vif.address,
        meta: vif.meta,
        port_uuid: vif.id,
        version: ip.version,
        address: ip.address,
        device_name: vif.devname,
      }),
    ),
  );
}

function bdmPayload(bdm: NovaObject<'BlockDeviceMapping'>): Primitive {
  const fields = ['device_name', 'boot_index', 'delete_on_termination', 'volume_id', 'tag'] as const;
  return payload('BlockDevicePayload', '1.0', sameFields(bdm, fields));
}

function keypairPayload(keypair: NovaObject<'KeyPair'>): Primitive {
  const fields = ['user_id', 'name', 'fingerprint', 'public_key', 'type'] as const;
  return payload('KeypairPayload', '1.0', sameFields(keypair, fields));
}

function payload(name: string, version: string, data: Dict): Primitive {
  return {
    'nova_object.name': name,
    'nova_object.namespace': 'nova',
    'nova_object.version': version,
    'nova_object.data': data,
  };
}
