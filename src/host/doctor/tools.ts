// The programs that the engine runs, and the Debian packages that have them.
import { join } from 'node:path';
import type { Finding } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';

interface Tool {
  readonly program: string;
  readonly package: string;
  /** What is not to be had without it; absent: nothing works. */
  readonly feature?: string;
}

const TOOLS: readonly Tool[] = [
  { program: 'lxc-start', package: 'lxc' },
  { program: 'newuidmap', package: 'uidmap' },
  { program: 'ip', package: 'iproute2' },
  { program: 'tar', package: 'tar' },
  { program: 'rsync', package: 'rsync', feature: 'copies between pools and machines' },
  { program: 'xz', package: 'xz-utils', feature: 'images packed by xz' },
  { program: 'zstd', package: 'zstd', feature: 'images packed by zstd' },
  { program: 'unsquashfs', package: 'squashfs-tools', feature: 'images of type squashfs' },
  { program: 'dnsmasq', package: 'dnsmasq-base', feature: 'managed networks with DHCP and DNS' },
  { program: 'nft', package: 'nftables', feature: 'NAT, filters and forwards of networks' },
  { program: 'tc', package: 'iproute2', feature: 'rates of nics' },
  { program: 'setfattr', package: 'attr', feature: 'tests of file systems for attributes' },
  { program: 'fuse2fs', package: 'fuse2fs', feature: 'roots on devices of the host' },
  { program: 'bwrap', package: 'bubblewrap', feature: 'roots on devices of the host' },
  { program: 'e2fsck', package: 'e2fsprogs', feature: 'roots on devices of the host' },
  { program: 'perl', package: 'perl-base', feature: 'roots on devices of the host' },
  { program: 'btrfs', package: 'btrfs-progs', feature: 'pools of the driver btrfs' },
  { program: 'zfs', package: 'zfsutils-linux', feature: 'pools of the driver zfs' },
  { program: 'lvcreate', package: 'lvm2', feature: 'pools of the driver lvm' },
  { program: 'thin_check', package: 'thin-provisioning-tools', feature: 'pools of the driver lvm' },
];

const FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

export async function examineTools(host: Host): Promise<readonly Finding[]> {
  return Promise.all(TOOLS.map((tool) => examine(host, tool)));
}

async function examine(host: Host, { program, package: name, feature }: Tool): Promise<Finding> {
  const path = await findProgram(host, program);
  const without = feature === undefined ? 'containers cannot run without it' : `needed for ${feature}`;
  return {
    area: 'tools',
    what: program,
    state: path === undefined ? (feature === undefined ? 'bad' : 'note') : 'ok',
    found: path ?? 'not installed',
    advice: path === undefined ? `apt install ${name}: ${without}` : '',
  };
}

export async function findProgram(host: Host, program: string): Promise<string | undefined> {
  for (const folder of FOLDERS) if (await host.exists(join(folder, program))) return join(folder, program);
  return undefined;
}
