// The section [lxd] of nova.conf: the engine and what of it instances get.
import type * as Config from './config.ts';
import type { Options } from './options.ts';
import { SectionReader } from './read.ts';

export function composeLxd(options: Options): Config.LxdConfig {
  const reader = new SectionReader(options, 'lxd');
  const clientCert = reader.optionalString('client_cert') ?? null;
  const clientKey = reader.optionalString('client_key') ?? null;
  const endpoint = reader.string('endpoint');
  if ((clientCert === null) !== (clientKey === null)) reader.complain('client_cert', 'goes together with client_key');
  if (endpoint.startsWith('https:') && clientCert === null) reader.complain('client_cert', 'must be set for https');
  return {
    endpoint,
    project: reader.string('project'),
    storagePool: reader.optionalString('storage_pool') ?? null,
    profiles: reader.strings('profiles'),
    rootQuota: reader.string('root_quota') as Config.LxdConfig['rootQuota'],
    metadataService: reader.boolean('metadata_service'),
    configDriveDisk: reader.boolean('config_drive_disk'),
    mkisofsCommand: new SectionReader(options, 'DEFAULT').string('mkisofs_cmd'),
    allowNesting: reader.boolean('allow_nesting'),
    allowPrivileged: reader.boolean('allow_privileged'),
    allowSuspendToDisk: reader.boolean('allow_suspend_to_disk'),
    migrationAddress: reader.optionalString('migration_address') ?? null,
    migrationTimeoutMs: reader.ms('migration_timeout'),
    maxConcurrentMigrations: reader.number('max_concurrent_migrations'),
    maxDiskImageGib: reader.number('max_disk_image'),
    nfsMountPointBase: reader.string('nfs_mount_point_base'),
    nfsMountOptions: reader.optionalString('nfs_mount_options') ?? null,
    clientCert,
    clientKey,
    serverCert: reader.optionalString('server_cert') ?? null,
    requestTimeoutMs: reader.ms('request_timeout'),
    imageTimeoutMs: reader.ms('image_timeout'),
    spawnTimeoutMs: reader.ms('spawn_timeout'),
  };
}
