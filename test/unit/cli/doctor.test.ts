// lighter doctor: what it says of a machine, and what it mends.
import { beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '#src/cli/program.ts';
import { FakeTerminal } from '#test/fakes/fake-terminal.ts';

const SYSCTLS = {
  'fs/inotify/max_user_instances': '128\n',
  'fs/inotify/max_user_watches': '1048576\n',
  'kernel/keys/maxkeys': '200\n',
};
const FILE = '/etc/sysctl.d/60-lightervisor.conf';

let terminal: FakeTerminal;

/** A machine that lacks nothing but limits. */
beforeEach(() => {
  terminal = new FakeTerminal({ socketPath: '/nonexistent' });
  const { files } = terminal.host;
  files.set('/proc/sys/kernel/osrelease', '6.1.0\n');
  files.set('/proc/self/ns', null);
  for (const name of ['user', 'pid', 'mnt', 'net', 'ipc', 'uts', 'cgroup']) files.set(`/proc/self/ns/${name}`, '');
  files.set('/proc/sys/user/max_user_namespaces', '95000\n');
  files.set('/proc/sys/kernel/seccomp/actions_avail', 'kill allow\n');
  files.set('/proc/self/mountinfo', '30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n');
  files.set('/sys/fs/cgroup/cgroup.controllers', 'cpuset cpu io memory hugetlb pids\n');
  files.set('/proc/filesystems', 'nodev\toverlay\n\tbtrfs\nnodev\tzfs\n');
  files.set('/proc/misc', '229 fuse\n236 device-mapper\n');
  files.set('/etc/subuid', 'root:1000000:131072\n');
  files.set('/etc/subgid', 'root:1000000:131072\n');
  for (const [path, value] of Object.entries(SYSCTLS)) files.set(`/proc/sys/${path}`, value);
  const tools = [
    'lxc-start newuidmap ip tar rsync xz zstd unsquashfs dnsmasq nft tc setfattr',
    'fuse2fs bwrap e2fsck perl btrfs zfs lvcreate thin_check criu',
  ];
  for (const tool of tools.join(' ').split(' ')) files.set(`/usr/bin/${tool}`, '');
});

interface Line {
  readonly what: string;
  readonly state: string;
}

async function states(): Promise<Record<string, string>> {
  await runCli(['doctor', '-f', 'json'], terminal);
  return Object.fromEntries((JSON.parse(terminal.output) as Line[]).map(({ what, state }) => [what, state]));
}

describe('lighter doctor', () => {
  it('names the first limit that many containers meet', async () => {
    expect(await runCli(['doctor'], terminal)).toBe(0);

    expect(terminal.output).toContain(
      'Containers can run here. 2 things could be better. ' +
        'The first limit is met at about 16 containers (fs.inotify.max_user_instances).',
    );
    expect(terminal.output).toMatch(/kernel\.keys\.maxkeys +NOTE +200 \(about 20 containers\)/);
  });

  it('raises what is too low, once, and keeps what else is in the file', async () => {
    terminal.host.files.set(FILE, '# ours\nvm.swappiness = 1\nkernel.keys.maxkeys = 300\n');

    expect(await runCli(['doctor', '--fix'], terminal)).toBe(0);
    expect(terminal.errors).toContain('fs.inotify.max_user_instances: 128 -> 1048576\n');
    expect(terminal.host.files.get('/proc/sys/kernel/keys/maxkeys')).toBe('2000');
    expect(terminal.host.files.get(FILE)).toBe(
      '# ours\nvm.swappiness = 1\nfs.inotify.max_user_instances = 1048576\nkernel.keys.maxkeys = 2000\n',
    );

    const before = terminal.errors;
    await runCli(['doctor', '--fix'], terminal);
    expect(terminal.errors).toBe(before);
  });

  it.each<[string, string | null | undefined, string, string]>([
    ['/usr/bin/lxc-start', undefined, 'lxc-start', 'bad'],
    ['/usr/bin/rsync', undefined, 'rsync', 'note'],
    ['/proc/self/ns/user', undefined, 'namespaces', 'bad'],
    ['/proc/sys/user/max_user_namespaces', '0\n', 'namespaces', 'bad'],
    ['/proc/self/mountinfo', '30 23 0:26 / / rw - ext4 /dev/vda rw\n', 'layout', 'bad'],
    ['/sys/fs/cgroup/cgroup.controllers', 'cpuset cpu memory pids\n', 'blkio', 'note'],
    ['/sys/fs/cgroup/cgroup.controllers', 'cpuset cpu io memory pids\n', 'hugetlb', 'note'],
    ['/sys/module/apparmor/parameters/enabled', 'Y\n', 'AppArmor', 'bad'],
    ['/sys/module/apparmor/parameters/enabled', 'N\n', 'AppArmor', 'ok'],
    ['/etc/subuid', 'root:1000000:1000\n', '/etc/subuid', 'bad'],
    ['/etc/subuid', undefined, '/etc/subuid', 'ok'],
    ['/proc/filesystems', '\tbtrfs\nnodev\tzfs\n', 'overlay', 'note'],
    ['/proc/misc', '229 fuse\n', 'device mapper', 'note'],
    ['/usr/bin/lvcreate', undefined, 'lvcreate', 'note'],
    ['/usr/bin/criu', undefined, 'criu', 'note'],
  ])('with %s as %j: %s is %s', async (path, content, what, state) => {
    if (content === undefined) terminal.host.files.delete(path);
    else terminal.host.files.set(path, content);

    expect((await states())[what]).toBe(state);
    expect(await runCli(['doctor'], terminal)).toBe(state === 'bad' ? 1 : 0);
  });

  it('finds no fault with AppArmor when its parser and its files are there', async () => {
    terminal.host.files.set('/sys/module/apparmor/parameters/enabled', 'Y\n');
    terminal.host.files.set('/usr/sbin/apparmor_parser', '');
    expect((await states())['AppArmor']).toBe('bad');

    terminal = Object.assign(new FakeTerminal({ socketPath: '/nonexistent' }), { host: terminal.host });
    terminal.host.files.set('/sys/kernel/security/apparmor/profiles', '');
    // CRIU works there, and is of no use to containers.
    expect(await states()).toMatchObject({ AppArmor: 'ok', criu: 'note' });
  });

  it('ends with an error where it may not set a limit', async () => {
    terminal.host.writeFile = async () => {
      throw new Error('EACCES');
    };

    expect(await runCli(['doctor', '--fix'], terminal)).toBe(1);
    expect(terminal.errors).toContain('must be run as root');
  });
});
