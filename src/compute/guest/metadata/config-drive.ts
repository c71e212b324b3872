// The tree of a config drive (appendix E.2, E.3, E.5): the same paths and documents as a stock compute writes.
import { randomBytes } from 'node:crypto';
import type { GuestFile } from '#drivers/virt/driver.ts';
import type { DeviceFacts, MetadataFacts } from './facts.ts';

/** Names of a document format, oldest first; `latest` is the last one. */
const OPENSTACK_VERSIONS = [
  '2012-08-10',
  '2013-04-04',
  '2013-10-17',
  '2015-10-15',
  '2016-06-30',
  '2016-10-06',
  '2017-02-22',
  '2018-08-27',
  '2020-10-14',
  '2025-04-04',
  'latest',
];
const EC2_VERSIONS = [
  '1.0',
  '2007-01-19',
  '2007-03-01',
  '2007-08-29',
  '2007-10-10',
  '2007-12-15',
  '2008-02-01',
  '2008-09-01',
  '2009-04-04',
  'latest',
];
const RANDOM_BYTES = 512;

type Document = Readonly<Record<string, unknown>>;

/** `skipped`: EC2 versions of [api] config_drive_skip_versions. */
export function configDrive(facts: MetadataFacts, skipped: ReadonlySet<string>): readonly GuestFile[] {
  return [
    ...EC2_VERSIONS.filter((version) => !skipped.has(version)).flatMap((version) => ec2Files(facts, version)),
    ...OPENSTACK_VERSIONS.flatMap((version) => openstackFiles(facts, version)),
    ...facts.files.map(({ content }, index) => ({ path: `openstack${contentPath(index)}`, content })),
  ];
}

function contentPath(index: number): string {
  return `/content/${String(index).padStart(4, '0')}`;
}

function json(path: string, document: unknown): GuestFile {
  return { path, content: Buffer.from(JSON.stringify(document)) };
}

function openstackFiles(facts: MetadataFacts, version: string): readonly GuestFile[] {
  const { userData, vendorData, network } = facts;
  const path = (name: string) => `openstack/${version}/${name}`;
  // dates of one form compare as text, and `latest` comes behind all of them
  const since = (first: string, ...files: readonly GuestFile[]) => (version >= first ? files : []);
  return [
    json(path('meta_data.json'), metadataDocument(facts, version)),
    ...(userData === null ? [] : [{ path: path('user_data'), content: userData }]),
    ...since('2013-10-17', json(path('vendor_data.json'), vendorData.static ?? {})),
    ...since('2015-10-15', json(path('network_data.json'), network ?? {})),
    ...since('2016-10-06', json(path('vendor_data2.json'), vendorData.all)),
  ];
}

function metadataDocument(facts: MetadataFacts, version: string): Document {
  const { metadata, files, adminPassword, keyName, keyPair } = facts;
  return {
    uuid: facts.uuid,
    ...(Object.keys(metadata).length > 0 && { meta: metadata }),
    ...(files.length > 0 && { files: files.map(({ path }, index) => ({ path, content_path: contentPath(index) })) }),
    ...(adminPassword !== null && { admin_pass: adminPassword }),
    ...(keyName !== null &&
      keyPair !== null && {
        public_keys: { [keyPair.name]: keyPair.publicKey },
        keys: [{ name: keyPair.name, type: keyPair.type, data: keyPair.publicKey }],
      }),
    hostname: facts.hostname,
    name: facts.displayName,
    launch_index: facts.launchIndex,
    availability_zone: facts.availabilityZone,
    ...(version >= '2013-04-04' && { random_seed: randomBytes(RANDOM_BYTES).toString('base64') }),
    ...(version >= '2015-10-15' && { project_id: facts.projectId }),
    ...(version >= '2016-06-30' && { devices: facts.devices.map((device) => deviceDocument(device, version)) }),
    ...(version >= '2020-10-14' && { dedicated_cpus: facts.dedicatedCpus }),
  };
}

/** As Nova's metadata service writes it. */
function deviceDocument({ tags, ...device }: DeviceFacts, version: string): Document {
  // of virtual functions, which containers have none of
  const trust = device.type === 'nic' && version >= '2018-08-27' && { vf_trusted: false };
  return { ...device, ...trust, bus: 'none', address: 'none', tags };
}

function ec2Files(facts: MetadataFacts, version: string): readonly GuestFile[] {
  const { userData } = facts;
  return [
    ...(userData === null ? [] : [{ path: `ec2/${version}/user-data`, content: userData }]),
    json(`ec2/${version}/meta-data.json`, ec2Document(facts, version)),
  ];
}

function ec2Document(facts: MetadataFacts, version: string): Document {
  const { ec2, hostname, keyName, keyData } = facts;
  return {
    'ami-id': ec2.imageId,
    'ami-launch-index': facts.launchIndex,
    'ami-manifest-path': 'FIXME',
    'instance-id': ec2.instanceId,
    hostname,
    'local-ipv4': ec2.address,
    'reservation-id': ec2.reservationId,
    'security-groups': ec2.securityGroups,
    ...(keyName !== null && { 'public-keys': { 0: { 'openssh-key': keyData } } }),
    ...(version >= '2007-01-19' && {
      'local-hostname': hostname,
      'public-hostname': hostname,
      'public-ipv4': ec2.floatingAddress ?? '',
    }),
    ...(version >= '2007-08-29' && { 'instance-type': ec2.flavorName }),
    ...(version >= '2007-12-15' && {
      'block-device-mapping': ec2.blockDevices,
      ...(ec2.kernelId !== null && { 'kernel-id': ec2.kernelId }),
      ...(ec2.ramdiskId !== null && { 'ramdisk-id': ec2.ramdiskId }),
    }),
    ...(version >= '2008-02-01' && { placement: { 'availability-zone': facts.availabilityZone } }),
    ...(version >= '2008-09-01' && { 'instance-action': 'none' }),
  };
}
