// The image of Tempest's servers: the busybox root, with what Tempest runs in a guest. Tempest's own tests are written for CirrOS,
// which is busybox and dropbear as well, with a key that it asks the metadata service for.
import { chmod, copyFile, mkdir, mkdtemp, readFile, realpath, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { makeBusyboxRoot } from '../../integration/images.ts';
import { run } from '../lab/commands.ts';

/** Of Debian, with the libraries that they load. */
const PROGRAMS = [
  '/usr/bin/bash',
  '/usr/bin/curl',
  '/usr/sbin/dropbear',
  '/usr/bin/lsblk',
  '/usr/sbin/blkid',
  '/usr/sbin/mke2fs',
  '/usr/bin/mount',
  '/usr/bin/umount',
  '/usr/bin/fuse2fs',
  '/usr/bin/fuseiso',
];

/** busybox has some of the same name, which know less, and its shell would take them before any file: bash is the shell. */
const TAKEN = new Set(PROGRAMS.map((program) => basename(program)));

/** dropbear at once; the key and the name as soon as the metadata service answers. Started by init. */
const RC_LOCAL = `#!/bin/sh
mkdir -p /root/.ssh /etc/dropbear /mnt /var/run
dropbear -R
address=http://169.254.169.254/latest/meta-data
for try in $(seq 30); do
  name=$(curl -sf -m 10 "$address/local-hostname") && break
  sleep 1
done
[ -n "$name" ] && hostname "\${name%.novalocal}"
# an answer may be late on a busy machine; 22: the server has no key
for try in $(seq 10); do
  curl -sf -m 10 -o /root/.ssh/authorized_keys "$address/public-keys/0/openssh-key"
  case $? in 0|22) break ;; esac
done
chmod 700 /root /root/.ssh
echo "lightervisor-test: metadata read"
`;

/** Asks for the route to the metadata service (option 121) as well, and leaves a pid file, which Tempest sends its signals by. */
const UDHCPC = `#!/bin/sh
exec /bin/busybox udhcpc -p /var/run/udhcpc.eth0.pid -O staticroutes "$@"
`;

const ROUTES = `
set -- $staticroutes
while [ $# -ge 2 ]; do
  ip route replace "$1" via "$2" dev "$interface"
  shift 2
done
`;

async function linkApplets(root: string): Promise<void> {
  const applets = (await run(['/bin/busybox', '--list'])).split('\n').filter((name) => name !== '');
  for (const name of applets) {
    if (!TAKEN.has(name) && !existsSync(join(root, 'bin', name))) await symlink('busybox', join(root, 'bin', name));
  }
}

async function copyProgram(root: string, program: string): Promise<void> {
  const libraries = [...(await run(['ldd', program])).matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? '');
  await copyInto(root, program, `/bin/${basename(program)}`);
  for (const library of libraries) await copyInto(root, library, library);
}

async function copyInto(root: string, from: string, to: string): Promise<void> {
  const target = join(root, to);
  await mkdir(dirname(target), { recursive: true });
  // in the place of a link to busybox, not into busybox
  await rm(target, { force: true });
  await copyFile(await realpath(from), target);
  await chmod(target, 0o755);
}

/** A guest without disks is nothing to tell for lsblk, and Tempest, which counts them, cannot read that: it wants the heading. */
const LSBLK = `#!/bin/sh
found=$(/usr/libexec/lsblk "$@") || exit
echo "\${found:-NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS}"
`;

/** What mount(8) asks for a type of file system: no kernel mounts a disk for a container, FUSE does. */
const MOUNT_HELPERS = {
  'sbin/mount.ext4': '#!/bin/sh\nexec fuse2fs "$1" "$2"\n',
  'sbin/mount.iso9660': '#!/bin/sh\nexec fuseiso -p "$1" "$2"\n',
};

/** A guest has a root without a disk, so `grep -c` may count none in /proc/partitions; Tempest takes its exit status for a failure. */
const GREP = `#!/bin/sh
[ "$1" = -c ] || exec busybox grep "$@"
busybox grep "$@" || [ $? = 1 ]
`;

async function writeScripts(root: string): Promise<void> {
  const dhcp = join(root, 'usr/share/udhcpc/default.script');
  const withRoutes = (await readFile(dhcp, 'utf8')).replace(
    '    : > /etc/resolv.conf\n',
    `${ROUTES}    : > /etc/resolv.conf\n`,
  );
  await mkdir(join(root, 'usr/libexec'), { recursive: true });
  await rename(join(root, 'bin/lsblk'), join(root, 'usr/libexec/lsblk'));
  const scripts = {
    'bin/grep': GREP,
    'bin/lsblk': LSBLK,
    'etc/rc.local': RC_LOCAL,
    'sbin/udhcpc': UDHCPC,
    'usr/share/udhcpc/default.script': withRoutes,
    // its one user is root
    'bin/sudo': '#!/bin/sh\nexec "$@"\n',
    ...MOUNT_HELPERS,
  };
  for (const [name, text] of Object.entries(scripts)) {
    await rm(join(root, name), { force: true });
    await writeFile(join(root, name), text);
    await chmod(join(root, name), 0o755);
  }
}

/** Writes the tarball; returns a name that changes with what is in it. */
export async function makeGuest(file: string): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'tempest-guest-'));
  try {
    await makeBusyboxRoot(root);
    await chmod(root, 0o755);
    await linkApplets(root);
    for (const program of PROGRAMS) await copyProgram(root, program);
    await rm(join(root, 'bin/sh'));
    await symlink('bash', join(root, 'bin/sh'));
    await writeScripts(root);
    const steady = ['--sort=name', '--mtime=@1700000000', '--numeric-owner', '--owner=0', '--group=0'];
    await run(['tar', ...steady, '-C', root, '-I', 'gzip -n', '-cf', file, '.']);
    return `tempest-${createHash('sha256')
      .update(await readFile(file))
      .digest('hex')
      .slice(0, 12)}`;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}
