// What a container of ours cannot give: an explicit demand for it fails the build instead of being ignored (appendix D.1).
import { novaException } from '#src/nova/exceptions.ts';
import { AppError } from '#src/lib/errors.ts';
import { truthOf } from '#src/lib/truth.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { VirtDriver, VirtInfo } from '#drivers/virt/driver.ts';
import { spawnFlavor } from '../images/spawn-spec.ts';
import { vifRates } from '../network/vif-rates.ts';
import { readWishes } from '../network/request.ts';
import type { BlockDevice } from '../volumes/block-devices.ts';
import { rootVolumeAmong } from '../volumes/root-volume.ts';
import { ephemeralsAmong } from '../volumes/ephemerals.ts';
import type { BuildRequest } from './request.ts';
import { topologyComplaint } from '../resources/pinning.ts';

type Able = Pick<VirtDriver, 'info' | 'canBootFromVolume'>;
type Demand = (request: BuildRequest, info: VirtInfo, virt: Able) => boolean;

const wantsEncryption = demands('ephemeral_encryption', isTrue);

const REFUSALS: readonly (readonly [reason: string, isDemanded: Demand])[] = [
  [
    'Attempt to boot guest with tagged devices on host that does not support tagging.',
    (request, { capabilities }) => hasTags(request) && !capabilities.has('supports_device_tagging'),
  ],
  [
    'Trusted image certificates provided on host that does not support certificate validation.',
    ({ instance }, { capabilities }) =>
      hasItems(instance.find('trusted_certs')?.find('ids')) && !capabilities.has('supports_trusted_certs'),
  ],
  ['Accelerators are not supported on this host.', ({ acceleratorIds }) => acceleratorIds.length > 0],
  [
    'PCI devices are not supported on this host.',
    ({ instance }) => hasItems(instance.find('pci_requests')?.find('requests')),
  ],
  [
    'Booting from a volume is not supported on this host.',
    ({ blockDevices }, _info, virt) => rootVolumeAmong(blockDevices) !== undefined && !virt.canBootFromVolume,
  ],
  ['An empty volume has nothing to boot from.', ({ blockDevices }) => isNewAndBlank(rootVolumeAmong(blockDevices))],
  [
    'Ephemeral disks have the file system of the host: no other one can be asked for.',
    ({ blockDevices }) => ephemeralsAmong(blockDevices).some((device) => isSet(device.find('guest_format'))),
  ],
  [
    'Encryption of ephemeral disks is not supported on this host.',
    (request, info, virt) =>
      request.blockDevices.some((device) => device.find('encrypted') === true) || wantsEncryption(request, info, virt),
  ],
  ['Memory encryption is not supported on this host.', demands('mem_encryption', isTrue)],
  [
    'Secure boot is not supported on this host.',
    demandsProperty('os_secure_boot', 'os:secure_boot', (value) => value === 'required'),
  ],
  ['An emulated TPM is not supported on this host.', demands('tpm_model', isSet)],
  ['An emulated TPM is not supported on this host.', demands('tpm_version', isSet)],
  ['Real time is not supported on this host.', demands('cpu_realtime', isTrue)],
  ['UEFI firmware is not supported on this host.', demands('firmware_type', (value) => value === 'uefi')],
];

/** Rejects with BuildAbortException: no other host of this kind would do better. */
export function refuseUnsupported(request: BuildRequest, virt: Able & Pick<VirtDriver, 'checkFlavor'>): void {
  const [reason] = REFUSALS.find(([, isDemanded]) => isDemanded(request, virt.info, virt)) ?? [];
  const flavor = request.instance.find('flavor');
  const complaint =
    reason ??
    topologyComplaint(request.instance.find('numa_topology')) ??
    (flavor && flavorComplaint(flavor, virt)?.message);
  if (complaint === undefined) return;
  throw novaException('BuildAbortException', { instance_uuid: request.instance.get('uuid'), reason: complaint });
}

function isNewAndBlank(device: BlockDevice | undefined): boolean {
  return device?.find('source_type') === 'blank' && (device.find('volume_id') ?? null) === null;
}

/** Why the host does not take a flavor; undefined when it does. */
export function flavorComplaint(
  flavor: NovaObject<'Flavor'>,
  virt: Pick<VirtDriver, 'checkFlavor'>,
): AppError | undefined {
  const known = spawnFlavor(flavor);
  try {
    vifRates(known.extraSpecs);
    virt.checkFlavor(known);
    return undefined;
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
}

/** Of devices. */
export function hasTags({
  requestedNetworks,
  blockDevices,
}: Pick<BuildRequest, 'requestedNetworks' | 'blockDevices'>): boolean {
  return (
    readWishes(requestedNetworks).list.some(({ tag }) => tag !== null) ||
    blockDevices.some((device) => isSet(device.find('tag')))
  );
}

/** An image property `hw_x` or a flavor extra spec `hw:x`. */
function demands(name: string, isDemand: (value: unknown) => boolean): Demand {
  return demandsProperty(`hw_${name}`, `hw:${name}`, isDemand);
}

function demandsProperty(property: string, extraSpec: string, isDemand: (value: unknown) => boolean): Demand {
  return ({ instance, image }) => {
    const properties = image['properties'];
    const ofImage = isDict(properties) ? properties[property] : undefined;
    const ofFlavor = instance.find('flavor')?.find('extra_specs')?.[extraSpec];
    return isDemand(ofImage) || isDemand(ofFlavor);
  };
}

function isDict(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

function hasItems(value: readonly unknown[] | null | undefined): boolean {
  return value !== undefined && value !== null && value.length > 0;
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '';
}

function isTrue(value: unknown): boolean {
  return value === true || (typeof value === 'string' && truthOf(value) === true);
}
