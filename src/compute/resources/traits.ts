// Which Placement traits the compute sets on its root provider, and which it leaves to others (contract section 4.5).
import type { VirtInfo } from '#drivers/virt/driver.ts';

/** Capability of a virt driver → trait. */
const CAPABILITY_TRAITS: Readonly<Record<string, string>> = {
  supports_attach_interface: 'COMPUTE_NET_ATTACH_INTERFACE',
  supports_device_tagging: 'COMPUTE_DEVICE_TAGGING',
  supports_tagged_attach_interface: 'COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG',
  supports_tagged_attach_volume: 'COMPUTE_VOLUME_ATTACH_WITH_TAG',
  supports_extend_volume: 'COMPUTE_VOLUME_EXTEND',
  supports_multiattach: 'COMPUTE_VOLUME_MULTI_ATTACH',
  supports_trusted_certs: 'COMPUTE_TRUSTED_CERTS',
  supports_accelerators: 'COMPUTE_ACCELERATORS',
  supports_migrate_to_same_host: 'COMPUTE_SAME_HOST_COLD_MIGRATE',
  supports_bfv_rescue: 'COMPUTE_RESCUE_BFV',
  supports_secure_boot: 'COMPUTE_SECURITY_UEFI_SECURE_BOOT',
  supports_socket_pci_numa_affinity: 'COMPUTE_SOCKET_PCI_NUMA_AFFINITY',
  supports_remote_managed_ports: 'COMPUTE_REMOTE_MANAGED_PORTS',
  supports_ephemeral_encryption: 'COMPUTE_EPHEMERAL_ENCRYPTION',
  supports_ephemeral_encryption_luks: 'COMPUTE_EPHEMERAL_ENCRYPTION_LUKS',
  supports_ephemeral_encryption_plain: 'COMPUTE_EPHEMERAL_ENCRYPTION_PLAIN',
  supports_address_space_passthrough: 'COMPUTE_ADDRESS_SPACE_PASSTHROUGH',
  supports_address_space_emulated: 'COMPUTE_ADDRESS_SPACE_EMULATED',
  supports_stateless_firmware: 'COMPUTE_SECURITY_STATELESS_FIRMWARE',
  supports_virtio_fs: 'COMPUTE_STORAGE_VIRTIO_FS',
  supports_mem_backing_file: 'COMPUTE_MEM_BACKING_FILE',
};

const IMAGE_TYPES = ['aki', 'ami', 'ari', 'iso', 'qcow2', 'raw', 'vdi', 'vhd', 'vhdx', 'vmdk', 'ploop'] as const;
const imageTypeTrait = (type: string): string => `COMPUTE_IMAGE_TYPE_${type.toUpperCase()}`;

const DISABLED = 'COMPUTE_STATUS_DISABLED';
const ALWAYS = ['COMPUTE_NODE', 'OWNER_NOVA'] as const;

/** Ours to add and to remove; every other trait belongs to the operator or to another service and stays. */
const MANAGED: ReadonlySet<string> = new Set([
  ...Object.values(CAPABILITY_TRAITS),
  ...IMAGE_TYPES.map(imageTypeTrait),
  ...ALWAYS,
  DISABLED,
]);

export interface TraitsWanted {
  readonly info: VirtInfo;
  readonly imageTypeExcludeList: readonly string[];
  /** The service is disabled: no scheduling to it. */
  readonly isDisabled: boolean;
  /** Of provider configuration files. */
  readonly additional: readonly string[];
}

/** The traits that are to be there, apart from what others have set. */
export function wantedTraits({ info, imageTypeExcludeList, isDisabled, additional }: TraitsWanted): readonly string[] {
  const capabilities = [...info.capabilities].flatMap((name) => {
    const trait = CAPABILITY_TRAITS[name.startsWith('supports_') ? name : `supports_${name}`];
    return trait === undefined ? [] : [trait];
  });
  const images = IMAGE_TYPES.filter((type) => info.diskFormats.includes(type) && !imageTypeExcludeList.includes(type));
  return [...ALWAYS, ...capabilities, ...images.map(imageTypeTrait), ...(isDisabled ? [DISABLED] : []), ...additional];
}

/** What is to be written: the wanted ones, and whatever is there that is not ours. Sorted. */
export function mergedTraits(present: readonly string[], wanted: readonly string[]): readonly string[] {
  const foreign = present.filter((trait) => !MANAGED.has(trait));
  return [...new Set([...foreign, ...wanted])].toSorted((a, b) => a.localeCompare(b));
}

export function isCustomTrait(trait: string): boolean {
  return trait.startsWith('CUSTOM_');
}
