// Where the tools of ext file systems read what a tenant wrote: without rights, network or files, but for the one device.
import type { Argv } from '../host.ts';
import type { ExposedDevice } from './device.ts';

const MEMORY_BYTES = 2 * 2 ** 30;
/** What they see of the device. */
export const DEVICE_INSIDE = '/disk';
export const MOUNT_INSIDE = '/mnt';

const NAMESPACES = ['ipc', 'pid', 'net', 'uts', 'cgroup-try'].map((name) => `--unshare-${name}`);
const FOLDERS = ['/bin', '/dev', '/etc', MOUNT_INSIDE].flatMap((path) => ['--dir', path]);
const PROGRAMS = ['/usr', '/lib', '/lib64', '/sbin'].flatMap((path) => ['--ro-bind-try', path, path]);
const DEVICES = ['/dev/null', '/dev/urandom'].flatMap((path) => ['--dev-bind', path, path]);
/** They look for what is mounted, and are told: nothing. */
const NO_MOUNTS = ['--dev-bind', '/dev/null', '/etc/mtab'];
const SESSION = ['--new-session', '--clearenv', '--setenv', 'PATH', '/usr/sbin:/usr/bin:/sbin:/bin'];
const BOUNDED = ['--', 'prlimit', '--core=0', `--as=${MEMORY_BYTES}`, '--'];
const POWERLESS = ['--clear-groups', '--bounding-set', '-all', '--inh-caps', '-all', '--no-new-privs'];

/** Before a command: these tools open a block device for themselves alone; of a file we see to that. */
export function alone({ path, isFile }: Pick<ExposedDevice, 'path' | 'isFile'>): Argv {
  return isFile ? ['flock', '--nonblock', '--conflict-exit-code', '75', '--no-fork', path] : ['env'];
}

/** `more`: mounts besides, as options of bwrap(1). */
export function jailed(device: ExposedDevice, program: Argv, more: readonly string[] = []): Argv {
  const { path, uid, gid } = device;
  const ids = ['--reuid', `${uid}`, '--regid', `${gid}`];
  return [
    ...alone(device),
    'bwrap',
    ...NAMESPACES,
    ...SESSION,
    ...FOLDERS,
    ...PROGRAMS,
    ...DEVICES,
    ...NO_MOUNTS,
    '--dev-bind',
    path,
    DEVICE_INSIDE,
    ...more,
    ...BOUNDED,
    'setpriv',
    ...ids,
    ...POWERLESS,
    '--',
    ...program,
  ];
}
