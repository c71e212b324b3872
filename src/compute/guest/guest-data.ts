// All that a guest is told of itself and given before its first boot: config drive, cloud-init's data, injected files.
import { isIPv4 } from 'node:net';
import type { RequestContext } from '#src/nova/context.ts';
import { fixedIpsOf, type Vif } from '#src/nova/network-model.ts';
import { isA, type NovaObject } from '#src/nova/objects/object.ts';
import { expectList, objectsOf } from '#src/nova/objects/wire.ts';
import type { GuestData, GuestFile, SpawnImage } from '#drivers/virt/driver.ts';
import { serviceCredentials } from '../network/credentials.ts';
import { findInstance } from '../records.ts';
import type { ComputeServices } from '../types.ts';
import { blockDeviceMapping } from './block-device-mapping.ts';
import { cloudInitData } from './cloud-init.ts';
import { configDrive } from './metadata/config-drive.ts';
import type { DeviceFacts, Ec2Facts, KeyPairFacts, MetadataFacts } from './metadata/facts.ts';
import { networkData } from './metadata/network-data.ts';
import { vendorData } from './vendor-data.ts';

type Instance = NovaObject<'Instance'>;

/** What only the request knows; Nova keeps none of it. */
export interface GuestWish {
  readonly image: Pick<SpawnImage, 'properties'>;
  readonly files: readonly GuestFile[];
  readonly adminPassword: string | null;
  /** null: asked of the conductor, when they matter. */
  readonly blockDevices: readonly NovaObject<'BlockDeviceMapping'>[] | null;
}

interface Asking {
  readonly services: Pick<ComputeServices, 'config' | 'conductor' | 'neutron' | 'log'>;
  readonly context: RequestContext;
  readonly signal: AbortSignal;
}

/** Fields of a record that messages may lack. */
const ATTRIBUTES = ['keypairs', 'ec2_ids', 'numa_topology', 'device_metadata'] as const;

/** `vifs`: the whole network of the instance. Marks the instance, unsaved, when it gets a config drive that nobody asked for. */
export async function guestData(
  asking: Asking,
  instance: Instance,
  wish: GuestWish,
  vifs: readonly Vif[],
): Promise<GuestData> {
  const { config } = asking.services;
  const hasDrive = needsConfigDrive(instance, wish.image, config.metadata.forceConfigDrive);
  if (hasDrive && !isGiven(instance.find('config_drive'))) instance.set('config_drive', 'True');
  const facts = await metadataFacts(asking, instance, { ...wish, hasDrive }, vifs);
  return {
    cloudInit: cloudInitData(facts, vifs),
    configDrive: hasDrive ? configDrive(facts, config.metadata.skippedEc2Versions) : null,
    files: hasDrive ? [] : wish.files,
    rootKey: config.metadata.injectKey ? (instance.find('key_data') ?? null) : null,
  };
}

/** Appendix E.1. An instance that has run before gets one only when it had one. */
export function needsConfigDrive(
  instance: Instance,
  { properties }: Pick<SpawnImage, 'properties'>,
  isForced: boolean,
): boolean {
  const wanted =
    properties['img_config_drive'] ?? instance.find('system_metadata')?.['image_img_config_drive'] ?? 'optional';
  const isNew = (instance.find('launched_at') ?? null) === null;
  return isGiven(instance.find('config_drive')) || (isForced && isNew) || wanted.toLowerCase() === 'mandatory';
}

function isGiven(configDriveField: string | null | undefined): boolean {
  return !/^(|0|f|false|off|n|no)$/i.test(configDriveField ?? '');
}

async function metadataFacts(
  asking: Asking,
  instance: Instance,
  wish: GuestWish & { readonly hasDrive: boolean },
  vifs: readonly Vif[],
): Promise<MetadataFacts> {
  const { metadata: options } = asking.services.config;
  const { hasDrive, blockDevices, adminPassword, files } = wish;
  const [record, securityGroups, devices, vendor] = await Promise.all([
    hasDrive ? completed(asking, instance) : instance,
    hasDrive ? securityGroupNames(asking, instance) : [],
    blockDevices ?? (hasDrive ? blockDevicesOf(asking, instance) : []),
    vendorData({ options: options.vendorData, log: asking.services.log, signal: asking.signal }, instance, hasDrive),
  ]);
  return {
    ...recordFacts(instance, options.dhcpDomain),
    keyPair: keyPairOf(record),
    dedicatedCpus: dedicatedCpus(record),
    // of a new instance, Nova does not know them yet
    devices: devicesOf(instance.find('device_metadata') === undefined ? record : instance),
    adminPassword,
    files,
    network: networkData(vifs),
    vendorData: vendor,
    ec2: {
      ...ec2Ids(record),
      ...addressesOf(vifs),
      securityGroups,
      blockDevices: blockDeviceMapping(instance, devices),
    },
  };
}

/** What is in every message about the instance. */
function recordFacts(instance: Instance, domain: string) {
  const text = textsOf(instance);
  const hostname = text('hostname') ?? instance.get('uuid');
  const userData = text('user_data');
  return {
    uuid: instance.get('uuid'),
    displayName: text('display_name'),
    hostname: domain === '' ? hostname : `${hostname}.${domain}`,
    launchIndex: instance.find('launch_index') ?? null,
    availabilityZone: text('availability_zone'),
    projectId: text('project_id'),
    metadata: instance.find('metadata') ?? {},
    userData: userData === null ? null : Buffer.from(userData, 'base64'),
    keyName: text('key_name'),
    keyData: text('key_data'),
  };
}

type TextField =
  | 'hostname'
  | 'user_data'
  | 'display_name'
  | 'availability_zone'
  | 'project_id'
  | 'key_name'
  | 'key_data'
  | 'reservation_id';

/** Absent is null. */
function textsOf(instance: Instance): (field: TextField) => string | null {
  return (field) => instance.find(field) ?? null;
}

/** The instance, or another copy of it when this one came without some of the attributes. */
async function completed({ services, context }: Asking, instance: Instance): Promise<Instance> {
  if (ATTRIBUTES.every((attribute) => instance.find(attribute) !== undefined)) return instance;
  const asking = { conductor: services.conductor, context: context.elevated() };
  return (await findInstance(asking, instance.get('uuid'), ATTRIBUTES)) ?? instance;
}

async function blockDevicesOf({ services, context }: Asking, instance: Instance) {
  const call = { object: 'BlockDeviceMappingList', method: 'get_by_instance_uuid' } as const;
  const found = await services.conductor.classMethod(context, { ...call, args: [instance.get('uuid')] });
  return expectList(found, 'BlockDeviceMappingList');
}

function keyPairOf(instance: Instance): KeyPairFacts | null {
  const pairs = instance.find('keypairs');
  const [pair] = pairs === undefined ? [] : objectsOf(pairs);
  if (pair === undefined) return null;
  return { name: pair.get('name'), type: pair.get('type'), publicKey: pair.get('public_key') ?? '' };
}

function dedicatedCpus(instance: Instance): readonly number[] {
  const cells = instance.find('numa_topology')?.find('cells') ?? [];
  return cells.flatMap((cell) => [...(cell.find('pcpuset') ?? [])]).toSorted((left, right) => left - right);
}

function devicesOf(instance: Instance): readonly DeviceFacts[] {
  const devices = instance.find('device_metadata')?.find('devices') ?? [];
  return devices.flatMap((device): readonly DeviceFacts[] => {
    if (isA(device, 'NetworkInterfaceMetadata')) {
      return [{ type: 'nic', mac: device.get('mac'), tags: device.find('tags') ?? [] }];
    }
    if (!isA(device, 'DiskMetadata')) return [];
    const path = device.find('path');
    const serial = device.find('serial') ?? null;
    return [{ type: 'disk', serial, ...(path !== undefined && { path }), tags: device.find('tags') ?? [] }];
  });
}

function ec2Ids(instance: Instance) {
  const ids = instance.find('ec2_ids');
  const id = (field: 'instance_id' | 'ami_id' | 'kernel_id' | 'ramdisk_id') => ids?.find(field) ?? null;
  return {
    instanceId: id('instance_id'),
    imageId: id('ami_id'),
    kernelId: id('kernel_id'),
    ramdiskId: id('ramdisk_id'),
    reservationId: textsOf(instance)('reservation_id'),
    flavorName: instance.find('flavor')?.find('name') ?? '',
  };
}

function addressesOf(vifs: readonly Vif[]): Pick<Ec2Facts, 'address' | 'floatingAddress'> {
  const fixed = vifs.flatMap(fixedIpsOf);
  return {
    address: fixed.find(({ address }) => isIPv4(address ?? ''))?.address ?? null,
    floatingAddress: fixed.flatMap(({ floatingIps }) => floatingIps)[0]?.address ?? null,
  };
}

/** The groups of the instance's ports. */
async function securityGroupNames(
  { services, context, signal }: Asking,
  instance: Instance,
): Promise<readonly string[]> {
  const { neutron } = services;
  const credentials = serviceCredentials(context);
  const ports = await neutron.listPorts(credentials, { device_id: instance.get('uuid') }, signal);
  const ids = [...new Set(ports.flatMap((port) => (port['security_groups'] ?? []) as readonly string[]))];
  if (ids.length === 0) return [];
  const groups = await neutron.listSecurityGroups(credentials, { id: ids }, signal);
  return groups.flatMap(({ name, id }) => (typeof name === 'string' && name !== '' ? [name] : [String(id)]));
}
