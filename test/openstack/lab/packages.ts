// Debian packages: what a fresh machine needs for the engine and for the whole OpenStack.
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { run } from './commands.ts';
import { say } from './progress.ts';

const ENGINE =
  'lxc lxcfs uidmap dnsmasq-base iproute2 nftables tar gzip xz-utils zstd bzip2 squashfs-tools fuse2fs bubblewrap e2fsprogs rsync attr busybox-static procps ca-certificates';
const CONTROL_PLANE =
  'rabbitmq-server mariadb-server-core mariadb-client-core mariadb-client memcached keystone placement-api glance-api ' +
  'nova-api nova-conductor nova-scheduler python3-nova neutron-server neutron-linuxbridge-agent neutron-dhcp-agent ' +
  'python3-openstackclient python3-pymysql python3-sqlalchemy-ext python3-memcache python3-pymemcache uwsgi-core ' +
  'uwsgi-plugin-python3 ' +
  'ipset iptables ebtables arping conntrack haproxy bridge-utils iputils-ping genisoimage';
/** For labs whose ports Open vSwitch wires. */
const SWITCHES = 'openvswitch-switch neutron-openvswitch-agent';
/** For labs with routers: they announce IPv6 networks. */
const ROUTERS = 'radvd';
/** For tests of volumes only. */
const VOLUMES = 'cinder-api cinder-scheduler cinder-volume';
/** For npm run tempest only; what its guest has of Debian goes with it. */
const TEMPEST = 'tempest python3-tempest bash curl dropbear-bin e2fsprogs util-linux mount fuse2fs fuseiso';
/** For the integration tests only: file systems, the stock client, peers. */
const TESTS =
  'zfs-fuse btrfs-progs e2fsprogs lxd lxd-client rabbitmq-server python3-oslo.messaging mmdebstrap openvswitch-switch libcap2-bin acl openssl nova-consoleproxy qemu-utils fdisk';

const words = (text: string) => text.split(/\s+/).filter((word) => word !== '');

export const PACKAGES = {
  engine: words(ENGINE),
  controlPlane: words(CONTROL_PLANE),
  switches: words(SWITCHES),
  routers: words(ROUTERS),
  volumes: words(VOLUMES),
  tempest: words(TEMPEST),
  tests: words(TESTS),
} as const;

async function missingOf(packages: readonly string[]): Promise<readonly string[]> {
  const format = '${db:Status-Abbrev} ${Package}\\n';
  const listed = await run(['dpkg-query', '-W', '-f', format]);
  const installed = new Set(
    listed
      .split('\n')
      .filter((line) => line.startsWith('ii'))
      .map((line) => line.split(/\s+/)[1]),
  );
  return packages.filter((name) => !installed.has(name));
}

/** The OpenStack packages ask where to put their database; the lab makes its own. */
async function answerQuestions(): Promise<void> {
  const lines = ['keystone', 'glance', 'placement', 'nova', 'neutron', 'cinder'].flatMap((name) => [
    `${name}-common ${name}/configure_db boolean false`,
    `${name} ${name}/configure_db boolean false`,
    `${name}-common ${name}-common/configure_db boolean false`,
  ]);
  const file = '/tmp/.lightervisor-debconf';
  writeFileSync(file, `${lines.join('\n')}\n`);
  await run(['debconf-set-selections', file]);
}

/** No service may start from a maintainer script; a policy of the machine's owner stays. */
function forbidServices(): void {
  const policy = '/usr/sbin/policy-rc.d';
  if (existsSync(policy)) return;
  writeFileSync(policy, '#!/bin/sh\nexit 101\n');
  chmodSync(policy, 0o755);
}

/** Installs what is missing; nothing is asked of apt when everything is there. */
export async function installPackages(packages: readonly string[]): Promise<void> {
  const missing = await missingOf(packages);
  if (missing.length === 0) return;
  say(`installing ${missing.length} Debian packages and what they need: ${missing.join(' ')}`);
  forbidServices();
  const env = { DEBIAN_FRONTEND: 'noninteractive', DEBIAN_PRIORITY: 'critical' };
  const apt = ['apt-get', '-q', '-o', 'DPkg::Lock::Timeout=900', '-o', 'Dpkg::Options::=--force-confold'] as const;
  await run([...apt, 'update'], { env });
  await answerQuestions();
  await run([...apt, 'install', '-y', '--no-install-recommends', ...missing], { env });
}
