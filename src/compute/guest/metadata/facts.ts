// What the metadata documents of an instance are made of.
import type { GuestFile } from '#drivers/virt/driver.ts';
import type { NetworkData } from './network-data.ts';

export interface KeyPairFacts {
  readonly name: string;
  readonly type: string;
  readonly publicKey: string;
}

export interface VendorData {
  /** vendor_data.json; null when no provider gives it. */
  readonly static: unknown;
  /** vendor_data2.json. */
  readonly all: Readonly<Record<string, unknown>>;
}

/** Of the EC2 documents alone. */
export interface Ec2Facts {
  readonly instanceId: string | null;
  readonly imageId: string | null;
  readonly kernelId: string | null;
  readonly ramdiskId: string | null;
  readonly reservationId: string | null;
  readonly flavorName: string;
  readonly securityGroups: readonly string[];
  /** Of the fixed addresses, IPv4. */
  readonly address: string | null;
  readonly floatingAddress: string | null;
  readonly blockDevices: Readonly<Record<string, string | null>>;
}

/** A device that has a tag. */
export interface DeviceFacts {
  readonly type: 'nic' | 'disk';
  /** Of interfaces. */
  readonly mac?: string;
  /** Of disks. */
  readonly serial?: string | null;
  readonly path?: string | null;
  readonly tags: readonly string[];
}

export interface MetadataFacts {
  readonly uuid: string;
  readonly displayName: string | null;
  /** With the domain. */
  readonly hostname: string;
  readonly launchIndex: number | null;
  readonly availabilityZone: string | null;
  readonly projectId: string | null;
  /** The user's. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly userData: Uint8Array | null;
  readonly keyName: string | null;
  readonly keyPair: KeyPairFacts | null;
  /** As the instance's record has it. */
  readonly keyData: string | null;
  readonly adminPassword: string | null;
  readonly files: readonly GuestFile[];
  /** Ids of processors of the host that are the guest's alone. */
  readonly dedicatedCpus: readonly number[];
  readonly devices: readonly DeviceFacts[];
  readonly network: NetworkData | null;
  readonly vendorData: VendorData;
  readonly ec2: Ec2Facts;
}
