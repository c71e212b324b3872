// Writes a container's whole lxc configuration: no includes, no defaults of the host's package (lxd-engine-contract section 4.1).
import { AppError } from '#src/lib/errors.ts';
import type { RuntimeContainer, RuntimeMount, RuntimeNic, RuntimeSpec } from '../driver.ts';
import { apparmorRules } from './apparmor.ts';
import { limitSettings, type CgroupLayout } from './cgroups.ts';

/** What the host is like; read once per daemon. */
export interface HostFeatures {
  readonly cgroups: CgroupLayout;
  readonly apparmor: boolean;
  /** System calls can be held until they are looked at. */
  readonly interceptsCalls: boolean;
  /** Bind mounts for each container: host path → what it is, in order. */
  readonly extraMounts: readonly RuntimeMount[];
}

type Line = readonly [key: string, value: string];

/** Bounded: this file and one older (console.log.1) are kept. */
const CONSOLE_LOG_BYTES = '1MB';
const PRIVILEGED_DROP = 'sys_time sys_module sys_rawio mac_admin mac_override';
const PRIVILEGED_DEVICES = [
  'b *:* m',
  'c *:* m',
  'c 136:* rwm',
  'c 1:3 rwm',
  'c 1:5 rwm',
  'c 1:7 rwm',
  'c 1:8 rwm',
  'c 1:9 rwm',
  'c 5:0 rwm',
  'c 5:1 rwm',
  'c 5:2 rwm',
  'c 10:229 rwm',
  'c 10:200 rwm',
];

export interface ConfigRequest {
  readonly container: RuntimeContainer;
  readonly spec: RuntimeSpec;
  readonly features: HostFeatures;
  /** Absent: no filter. */
  readonly seccompPath?: string | undefined;
  /** The socket where its intercepted calls are asked about. Absent: there are none. */
  readonly callsPath?: string | undefined;
  /** Directory of the host whose mounts show up in the container. */
  readonly sharedMounts?: string | undefined;
}

/** liblxc's key for who is asked about intercepted calls. */
export const CALLS_KEY = 'lxc.seccomp.notify.proxy';

/** Where they show up. */
export const SHARED_MOUNTS_INSIDE = '/dev/.lxd-mounts';

export function lxcConfig(request: ConfigRequest): string {
  const { container, spec, features } = request;
  const lines: Line[] = [
    ...logLines(container),
    ...mountLines(spec, features),
    ['lxc.arch', /^(i.86|armv.*|arm)$/.test(spec.architecture) ? 'linux32' : 'linux64'],
    ['lxc.tty.max', '0'],
    ['lxc.uts.name', spec.hostname],
    ...securityLines(request),
    ...(spec.idMap ?? []).map(
      ({ kind, containerId, hostId, size }): Line => ['lxc.idmap', `${kind[0]} ${containerId} ${hostId} ${size}`],
    ),
    ...Object.entries(spec.environment).map(([key, value]): Line => ['lxc.environment', `${key}=${value}`]),
    ...cgroupLines(spec, features),
    ...Object.entries(spec.kernelLimits).map(([key, value]): Line => [`lxc.prlimit.${key}`, value]),
    ...Object.entries(spec.sysctl).map(([key, value]): Line => [`lxc.sysctl.${key}`, value]),
    ...(request.sharedMounts === undefined
      ? []
      : ([['lxc.mount.auto', `shmounts:${request.sharedMounts}:${SHARED_MOUNTS_INSIDE}`]] as const)),
    ...spec.nics.flatMap(nicLines),
    ...(spec.rebootNote === undefined ? [] : ([['lxc.hook.post-stop', rebootHook(spec.rebootNote)]] as const)),
    ...(spec.initCommand === undefined ? [] : ([['lxc.init.cmd', spec.initCommand]] as const)),
    ...(spec.rootfs.userNamespace === undefined
      ? []
      : ([['lxc.namespace.share.user', spec.rootfs.userNamespace]] as const)),
    ['lxc.rootfs.path', `dir:${spec.rootfs.path}`],
    ...(spec.rootfs.options === undefined ? [] : ([['lxc.rootfs.options', spec.rootfs.options]] as const)),
  ];
  const text = lines.map(line).join('');
  return spec.raw === undefined ? text : `${text}${spec.raw.endsWith('\n') ? spec.raw : `${spec.raw}\n`}`;
}

/** The format has no escape for a line break, and what follows one would be another setting. */
function line([key, value]: Line): string {
  if (/[\n\r\0]/.test(key) || /[\n\r\0]/.test(value)) {
    throw new AppError('invalid', `The value of ${key.split(/[\n\r\0]/)[0]} must not contain line breaks`);
  }
  return `${key} = ${value}\n`;
}

function logLines(container: RuntimeContainer): Line[] {
  return [
    ['lxc.log.file', container.logPath],
    ['lxc.log.level', 'warn'],
    ['lxc.console.logfile', container.consoleLogPath],
    ['lxc.console.size', CONSOLE_LOG_BYTES],
    ['lxc.console.rotate', '1'],
  ];
}

/** A container that may mount it gets its own instead of the host's. */
const MQUEUE: RuntimeMount = {
  source: 'mqueue',
  target: 'dev/mqueue',
  type: 'mqueue',
  options: ['rw', 'relatime', 'create=dir', 'optional'],
};

function mountLines(spec: RuntimeSpec, features: HostFeatures): Line[] {
  const privileged = spec.idMap === null;
  const proc = privileged ? 'proc:mixed sys:mixed' : 'proc:rw sys:rw';
  const shared = privileged
    ? [...features.extraMounts.filter(({ target }) => target !== MQUEUE.target), MQUEUE]
    : features.extraMounts;
  const nesting: RuntimeMount[] = [
    { source: 'proc', target: 'dev/.lxc/proc', type: 'proc', options: ['create=dir', 'optional'] },
    { source: 'sys', target: 'dev/.lxc/sys', type: 'sysfs', options: ['create=dir', 'optional'] },
  ];
  const mounts = [...shared, ...(spec.nesting ? nesting : []), ...spec.mounts];
  return [
    ['lxc.mount.auto', `${proc} ${features.cgroups.unified ? 'cgroup:rw:force' : 'cgroup:mixed'}`],
    ['lxc.autodev', '1'],
    // For one that is restored, liblxc has its console ready only when that is a terminal of the host: this makes it one.
    ['lxc.pty.max', spec.rebootNote === undefined ? '1024' : '1'],
    ...mounts.map((mount): Line => ['lxc.mount.entry', mountEntry(mount)]),
  ];
}

/** One fstab line; spaces are octal there. */
function mountEntry({ source, target, type, options }: RuntimeMount): string {
  return [source, target, type, options.join(','), '0', '0'].map((field) => field.replace(/[ \t\\]/g, octal)).join(' ');
}

function octal(character: string): string {
  return `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`;
}

/**
 * Whether init ended by reboot(2) can be read from how it died (by SIGHUP), as long as its monitor, which runs this, has not reaped it. A
 * monitor that has started it by itself looks at that, one that has restored it does not.
 */
const REBOOT_CHECK = [
  'for p in $(cat /proc/$PPID/task/$PPID/children)',
  'do read -r s </proc/$p/stat; case "$s" in *" Z "*" 1") : >"$0";; esac',
  'done',
].join('; ');

function rebootHook(note: string): string {
  return `/bin/sh -c '${REBOOT_CHECK}' '${note.replace(/'/gu, `'\\''`)}'`;
}

function securityLines({ spec, features, seccompPath, callsPath }: ConfigRequest): Line[] {
  return [
    ...(spec.idMap === null ? ([['lxc.cap.drop', PRIVILEGED_DROP]] as const) : []),
    ...(features.apparmor ? apparmorLines(spec) : []),
    ...(seccompPath === undefined ? [] : ([['lxc.seccomp.profile', seccompPath]] as const)),
    ...(callsPath === undefined ? [] : ([[CALLS_KEY, `unix:${callsPath}`]] as const)),
  ];
}

/** liblxc generates and loads a profile of its own. */
function apparmorLines(spec: RuntimeSpec): Line[] {
  return [
    ['lxc.apparmor.profile', 'generated'],
    ...(spec.nesting ? ([['lxc.apparmor.allow_nesting', '1']] as const) : []),
    ...apparmorRules(spec.apparmor).map((rule): Line => ['lxc.apparmor.raw', rule]),
  ];
}

function cgroupLines(spec: RuntimeSpec, { cgroups }: HostFeatures): Line[] {
  const prefix = cgroups.unified ? 'lxc.cgroup2' : 'lxc.cgroup';
  const devices: Line[] =
    spec.idMap === null
      ? [
          [`${prefix}.devices.deny`, 'a'],
          ...[...PRIVILEGED_DEVICES, ...(spec.deviceRules ?? [])].map(
            (rule): Line => [`${prefix}.devices.allow`, rule],
          ),
        ]
      : [];
  const limits = limitSettings(spec.limits, cgroups)
    .filter(({ controller }) => cgroups.controllers.has(controller))
    .map(({ file, value }): Line => [`${prefix}.${file}`, value]);
  return [...devices, ...limits];
}

function nicLines(nic: RuntimeNic, index: number): Line[] {
  const familyOf = (address: string) => (address.includes(':') ? 'ipv6' : 'ipv4');
  const optional: readonly (readonly [string, string | undefined])[] = [
    ['type', 'phys'],
    ['name', nic.name],
    ['flags', 'up'],
    ['link', nic.link],
    ['hwaddr', nic.hwaddr],
    ['mtu', nic.mtu?.toString()],
    ...(nic.addresses ?? []).map((address) => [`${familyOf(address)}.address`, withBroadcast(address)] as const),
    ...(nic.gateways ?? []).map((gateway) => [`${familyOf(gateway)}.gateway`, gateway] as const),
    ...(nic.deviceRoutes ?? []).map((family) => [`${family}.gateway`, 'dev'] as const),
  ];
  return optional.flatMap(([key, value]): Line[] => (value === undefined ? [] : [[`lxc.net.${index}.${key}`, value]]));
}

/** A single address has none; liblxc would make one up, of a neighbour. */
function withBroadcast(address: string): string {
  return address.endsWith('/32') && !address.includes(':') ? `${address} 0.0.0.0` : address;
}
