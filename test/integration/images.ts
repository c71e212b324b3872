// Small real roots for the integration tests: a busybox one made from this machine's own busybox, and a Debian one with systemd.
import { execFile } from 'node:child_process';
import { chmod, copyFile, lstat, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Printed on the console when init is up; followed by the host name. */
export const BUSYBOX_GREETING = 'lightervisor-test: up as';

const APPLETS = [
  'sh ash cat chmod chown cp date dd df dmesg echo env false free grep head hostname id ip kill ls ln mkdir mknod mount mv nc',
  'passwd ping poweroff printf ps pwd readlink reboot rm rmdir sed sleep stat stty sync tail tar telnetd test touch tr true tty',
  'udhcpc umount uname uptime vi wc wget who xargs',
].flatMap((line) => line.split(' '));

/** Pid 1 that does nothing until it is shut down, for hosts that hold hundreds. */
export const IDLE_INIT = `#!/bin/sh
export PATH=/sbin:/bin
trap 'poweroff -f' PWR INT TERM
ip link set lo up
while :; do
  sleep 86400 &
  wait $!
done
`;

/** Pid 1: answers SIGPWR (shut down) and SIGINT (reboot) as a container's init has to, asks for a lease on eth0, prints a line a second. */
const INIT = `#!/bin/sh
export PATH=/sbin:/bin HOME=/root
trap 'echo "lightervisor-test: power off"; poweroff -f' PWR
trap 'echo "lightervisor-test: reboot"; reboot -f' INT TERM
[ -r /etc/hostname ] && [ "$(hostname)" = "(none)" ] && hostname "$(cat /etc/hostname)"
ip link set lo up
echo "${BUSYBOX_GREETING} $(hostname)"
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -b -t 5 -T 1 -A 2 -s /usr/share/udhcpc/default.script >/dev/null 2>&1 &
fi
[ -x /etc/rc.local ] && /etc/rc.local &
count=0
while :; do
  count=$((count + 1))
  echo "lightervisor-test: tick $count"
  sleep 1 &
  wait $!
done
`;

const UDHCPC_SCRIPT = `#!/bin/sh
case "$1" in
  deconfig) ip -4 addr flush dev "$interface" ;;
  bound|renew)
    ip -4 addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; break; done
    : > /etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
    echo "lightervisor-test: address $ip" > /dev/console
    ;;
esac
`;

/** name → content, mode. */
const FILES: Readonly<Record<string, readonly [string, number]>> = {
  'usr/share/udhcpc/default.script': [UDHCPC_SCRIPT, 0o755],
  'etc/passwd': ['root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n', 0o644],
  'etc/shadow': ['root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n', 0o600],
  'etc/group': ['root:x:0:\nuser:x:1000:\n', 0o644],
  'etc/hostname': ['busybox\n', 0o644],
  'etc/hosts': ['127.0.0.1 localhost\n', 0o644],
  'etc/os-release': ['NAME=Busybox\nID=busybox\nVERSION_ID=1\n', 0o644],
};

const DIRECTORIES = [
  'bin',
  'sbin',
  'dev',
  'proc',
  'sys',
  'run',
  'tmp',
  'root',
  'home/user',
  'etc',
  'var',
  'usr/share/udhcpc',
];

/** Fills `directory` (made when absent) with a root of about 2 MB that boots as a container; `init` is the text of its pid 1. */
export async function makeBusyboxRoot(directory: string, init = INIT): Promise<void> {
  for (const name of DIRECTORIES) await mkdir(join(directory, name), { recursive: true });
  await copyFile('/bin/busybox', join(directory, 'bin/busybox'));
  await chmod(join(directory, 'bin/busybox'), 0o755);
  for (const applet of APPLETS) await symlink('busybox', join(directory, 'bin', applet));
  for (const [name, [content, mode]] of Object.entries({ ...FILES, 'sbin/init': [init, 0o755] as const })) {
    await writeFile(join(directory, name), content);
    await chmod(join(directory, name), mode);
  }
  await chmod(join(directory, 'tmp'), 0o1777);
}

export interface BusyboxImageOptions {
  /** Makes the content, and so the fingerprint, different. */
  readonly label?: string;
}

const METADATA = (label: string): string => `architecture: ${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}
creation_date: 1700000000
properties:
  os: busybox
  release: test
  description: ${label}
  architecture: ${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}
templates:
  /etc/hostname:
    when: [create, copy, rename, start]
    template: hostname.tpl
`;

/** A unified LXD image: metadata.yaml, templates/ and rootfs/ in one gzipped tarball. Same label, same bytes. */
export async function makeBusyboxImage(file: string, { label = 'busybox' }: BusyboxImageOptions = {}): Promise<void> {
  await inScratch(async (scratch) => {
    await makeBusyboxRoot(join(scratch, 'rootfs'));
    await mkdir(join(scratch, 'templates'));
    await writeFile(join(scratch, 'templates/hostname.tpl'), '{{ container.name }}\n');
    await writeFile(join(scratch, 'metadata.yaml'), METADATA(label));
    await pack(scratch, file, ['metadata.yaml', 'templates', 'rootfs']);
  });
}

/** The root alone, as Glance keeps a root-tar image. */
export async function makeBusyboxRootTarball(file: string, init = INIT): Promise<void> {
  await inScratch(async (scratch) => {
    await makeBusyboxRoot(scratch, init);
    await chmod(scratch, 0o755);
    await pack(scratch, file, ['.']);
  });
}

const SYSTEMD = 'systemd,systemd-sysv,dbus,iproute2,iputils-ping';

/** A Debian minbase root with systemd, made once by mmdebstrap from this machine's apt sources and kept in `cache`. */
export async function debianSystemdRoot(cache?: string): Promise<string> {
  return debianRoot('debian-systemd', [`--include=${SYSTEMD}`], cache);
}

/** The same with cloud-init, which sets up the network for systemd-networkd. */
export async function debianCloudRoot(cache?: string): Promise<string> {
  const hook = '--customize-hook=chroot "$1" systemctl enable systemd-networkd';
  return debianRoot('debian-cloud-init', [`--include=${SYSTEMD},udev,cloud-init,openssh-server`, hook], cache);
}

async function debianRoot(
  name: string,
  options: readonly string[],
  cache = '/var/cache/lightervisor-test',
): Promise<string> {
  const directory = join(cache, name);
  if (await exists(join(directory, 'sbin/init'))) return directory;
  await mkdir(cache, { recursive: true });
  const scratch = `${directory}.${process.pid}`;
  try {
    await run('mmdebstrap', ['--variant=minbase', ...options, 'bookworm', scratch], { timeout: 900_000 });
    await rename(scratch, directory);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
  return directory;
}

async function pack(from: string, file: string, names: readonly string[]): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const steady = ['--sort=name', '--mtime=@1700000000', '--numeric-owner', '--owner=0', '--group=0'];
  await run('tar', [...steady, '-C', from, '-I', 'gzip -n', '-cf', file, ...names]);
}

async function inScratch(work: (directory: string) => Promise<void>): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'busybox-'));
  try {
    await work(scratch);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** A link counts whether or not its target is on this machine. */
async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
