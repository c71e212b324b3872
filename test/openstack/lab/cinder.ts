// Cinder for the lab, started by those who want it: Debian's own, with its NFS driver, whose snapshots are copies. Where the kernel has
// no NFS client the share is a folder of this machine, bound where the driver would have mounted the export; all else is as it would
// be with a server.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OpenStackError } from 'keystone-client-ts';
import { Cloud } from './cloud.ts';
import { run, SYSTEM_ENV } from './commands.ts';
import { authtoken, credentials, database, rabbit, render } from './configuration.ts';
import { ensureVolumeService } from './identity.ts';
import { addVirtualHost, createDatabases, once } from './infrastructure.ts';
import { installPackages, PACKAGES } from './packages.ts';
import { httpAnswers, type Processes } from './processes.ts';
import { step } from './progress.ts';
import { SECOND_HOST, secondComputeName } from './second-node.ts';
import { COMPUTE_HOST, type LabPaths, PORTS } from './settings.ts';

export const CINDER = ['cinder-volume', 'cinder-scheduler', 'cinder-api'] as const;

/** The back ends: new volumes are on the first, as the second one keeps more room free. */
const BACK_ENDS = ['nfs', 'other'] as const;
type BackEnd = (typeof BACK_ENDS)[number];
/** The same for Cinder and for computes: both find it by this name below their own folders. */
const EXPORTS: Readonly<Record<BackEnd, string>> = { nfs: '127.0.0.1:/lab', other: '127.0.0.1:/other' };

/** For Cinder's administrators. */
export const OTHER_BACK_END = `${COMPUTE_HOST}@other#other`;

interface Folders {
  /** A folder for each back end, and where it is bound. */
  readonly shares: readonly { readonly share: string; readonly mounts: readonly string[] }[];
  readonly state: string;
}

function foldersOf({ data }: LabPaths): Folders {
  const state = join(data, 'cinder');
  const users = [state, join(data, 'compute'), join(data, secondComputeName(SECOND_HOST))];
  const shares = BACK_ENDS.map((name) => {
    const mountPoint = createHash('md5').update(EXPORTS[name]).digest('hex');
    return {
      share: join(state, name === 'nfs' ? 'share' : `share-${name}`),
      mounts: users.map((folder) => join(folder, 'mnt', mountPoint)),
    };
  });
  return { state, shares };
}

export const shareFolder = ({ data }: LabPaths): string => join(data, 'cinder/share');

function configuration(paths: LabPaths): string {
  const { state } = foldersOf(paths);
  return render({
    DEFAULT: {
      transport_url: rabbit('cinder'),
      my_ip: '127.0.0.1',
      host: COMPUTE_HOST,
      state_path: state,
      osapi_volume_listen: '127.0.0.1',
      osapi_volume_listen_port: PORTS.cinder,
      osapi_volume_workers: 1,
      api_paste_config: '/etc/cinder/api-paste.ini',
      resource_query_filters_file: '/etc/cinder/resource_filters.json',
      rootwrap_config: '/etc/cinder/rootwrap.conf',
      auth_strategy: 'keystone',
      enabled_backends: BACK_ENDS.join(','),
      default_volume_type: '__DEFAULT__',
      glance_api_servers: `http://127.0.0.1:${PORTS.glance}`,
      // volumes come and go in seconds
      report_interval: 5,
      service_down_time: 30,
      periodic_fuzzy_delay: 0,
      // also how long the scheduler makes the first volumes wait when it was up before the back ends, which tell it of themselves that often
      periodic_interval: 5,
      use_stderr: true,
    },
    ...Object.fromEntries(BACK_ENDS.map((name) => [name, backEnd(paths, name)])),
    database: { connection: database(paths, 'cinder') },
    keystone_authtoken: { ...authtoken('cinder'), service_token_roles: 'service', service_token_roles_required: true },
    nova: { ...credentials('cinder'), interface: 'public' },
    service_user: { send_service_user_token: true, ...credentials('cinder') },
    privsep_osbrick: { helper_command: 'privsep-helper' },
    cinder_sys_admin: { helper_command: 'privsep-helper' },
    oslo_concurrency: { lock_path: join(state, 'lock') },
  });
}

function backEnd(paths: LabPaths, name: BackEnd) {
  return {
    // in tools
    volume_driver: 'lab_volumes.CopyingNfsDriver',
    volume_backend_name: name,
    nfs_shares_config: sharesFile(paths, name),
    nfs_mount_point_base: join(foldersOf(paths).state, 'mnt'),
    nfs_mount_attempts: 1,
    nfs_sparsed_volumes: true,
    nfs_qcow2_volumes: false,
    nfs_snapshot_support: true,
    nas_secure_file_operations: false,
    nas_secure_file_permissions: false,
    max_over_subscription_ratio: name === 'nfs' ? 20 : 1,
  };
}

const sharesFile = (paths: LabPaths, name: BackEnd): string => join(paths.etc, `cinder/shares-${name}`);

async function bindShares(paths: LabPaths): Promise<void> {
  const table = readFileSync('/proc/self/mountinfo', 'utf8');
  for (const { share, mounts } of foldersOf(paths).shares) {
    mkdirSync(share, { recursive: true });
    for (const target of mounts) {
      mkdirSync(target, { recursive: true });
      if (!table.includes(` ${target} `)) await run(['mount', '--bind', share, target]);
    }
  }
}

export async function startCinder(paths: LabPaths, processes: Processes): Promise<void> {
  await installPackages(PACKAGES.volumes);
  const file = join(paths.etc, 'cinder/cinder.conf');
  mkdirSync(join(paths.etc, 'cinder'), { recursive: true });
  mkdirSync(join(foldersOf(paths).state, 'lock'), { recursive: true });
  writeFileSync(file, configuration(paths), { mode: 0o600 });
  for (const name of BACK_ENDS) writeFileSync(sharesFile(paths, name), `${EXPORTS[name]}\n`);
  await bindShares(paths);
  await createDatabases(paths, ['cinder']);
  await once(paths, 'cinder', async () => {
    await step('database of Cinder', async () => {
      await run(['cinder-manage', '--config-file', file, 'db', 'sync']);
    });
    await addVirtualHost(paths, 'cinder');
    await ensureVolumeService();
  });
  const tools = join(import.meta.dirname, 'tools');
  const env = { PATH: `${tools}:${SYSTEM_ENV['PATH']}`, PYTHONPATH: tools, PYTHONDONTWRITEBYTECODE: '1' };
  for (const name of CINDER) processes.start({ name, argv: [name, '--config-file', file], env });
  await processes.waitFor('cinder-api', () => httpAnswers(`http://127.0.0.1:${PORTS.cinder}/`));
  const cloud = new Cloud();
  await processes.waitFor('cinder-scheduler', () => knowsBackEnds(cloud));
}

async function knowsBackEnds({ volume }: Cloud): Promise<boolean> {
  try {
    const { data } = await volume.request({ method: 'GET', path: '/scheduler-stats/get_pools' });
    return (data as { pools: readonly unknown[] }).pools.length === BACK_ENDS.length;
  } catch (error) {
    if (error instanceof OpenStackError && (error.status ?? 500) >= 500) return false; // the scheduler does not answer yet
    throw error;
  }
}

/** Needs services and containers to be stopped: what is connected goes as well. */
export async function removeShareMounts(paths: LabPaths): Promise<void> {
  for (const target of foldersOf(paths).shares.flatMap(({ mounts }) => mounts.filter((mount) => existsSync(mount)))) {
    const devices = await run(['losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE']);
    for (const line of devices.split('\n').filter((one) => one.includes(target))) {
      await run(['losetup', '--detach', line.split(' ')[0] ?? '']);
    }
    if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${target} `)) await run(['umount', target]);
  }
}
