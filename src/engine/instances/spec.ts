// What the runtime is told about an instance: its expanded configuration, translated.
import type { RuntimeLimits, RuntimeMount, RuntimeNic, RuntimeSeccomp, RuntimeSpec } from '#drivers/runtime/driver.ts';
import type { IdMapRange } from '#drivers/storage/driver.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { idMapEntries } from './idmap.ts';
import type { InstanceRoot } from './instance-roots.ts';
import { runtimeLimits } from './limits.ts';
import { parseBoolean } from './values.ts';

export interface SpecParts {
  readonly record: InstanceRecord;
  /** Expanded. */
  readonly config: ConfigMap;
  readonly root: InstanceRoot;
  readonly idMap: IdMapRange | null;
  readonly nics: readonly RuntimeNic[];
  readonly mounts: readonly RuntimeMount[];
  readonly deviceRules: readonly string[];
  readonly throttles: NonNullable<RuntimeLimits['throttles']>;
  readonly network: Pick<RuntimeLimits, 'networkPriorities'>;
  /** Of the host; undefined: all. */
  readonly cpus: readonly number[] | undefined;
  /** Of a container that is restored. */
  readonly rebootNote?: string;
}

export function runtimeSpec(parts: SpecParts): RuntimeSpec {
  const { record, config, root, idMap, nics, mounts, deviceRules, throttles, network, cpus, rebootNote } = parts;
  const raw = config['raw.lxc'] ?? '';
  const apparmor = config['raw.apparmor'] ?? '';
  return {
    hostname: record.name,
    architecture: record.architecture,
    rootfs: {
      path: root.rootfsPath,
      ...(root.rootfsOptions !== undefined && { options: root.rootfsOptions }),
      ...(root.userNamespace !== undefined && { userNamespace: root.userNamespace }),
    },
    idMap: idMapEntries(idMap),
    nesting: parseBoolean(config['security.nesting']),
    environment: withPrefix(config, 'environment.'),
    nics,
    mounts,
    deviceRules,
    limits: { ...runtimeLimits(config, cpus), ...network, ...(Object.keys(throttles).length > 0 && { throttles }) },
    kernelLimits: withPrefix(config, 'limits.kernel.'),
    sysctl: withPrefix(config, 'linux.sysctl.'),
    seccomp: seccomp(config, idMap),
    ...(apparmor !== '' && { apparmor }),
    ...(rebootNote !== undefined && { rebootNote }),
    ...(raw !== '' && { raw }),
  };
}

function withPrefix(config: ConfigMap, prefix: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(config)
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value]),
  );
}

const CALLS = ['mknod', 'setxattr'] as const;

/** The names of LXD 3 stay valid beside those of LXD 4. */
function seccomp(config: ConfigMap, idMap: IdMapRange | null): RuntimeSeccomp {
  const either = (name: string, old: string): string => {
    const value = config[`security.syscalls.${name}`] ?? '';
    return value === '' ? (config[`security.syscalls.${old}`] ?? '') : value;
  };
  const raw = config['raw.seccomp'] ?? '';
  return {
    denyDefault: parseBoolean(either('deny_default', 'blacklist_default'), true),
    denyCompat: parseBoolean(either('deny_compat', 'blacklist_compat')),
    deny: lines(either('deny', 'blacklist')),
    allow: lines(either('allow', 'whitelist')),
    // a privileged container needs nobody for them
    intercept:
      idMap === null ? [] : CALLS.filter((call) => parseBoolean(config[`security.syscalls.intercept.${call}`])),
    ...(raw !== '' && { raw }),
  };
}

function lines(text: string): readonly string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}
