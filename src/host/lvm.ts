// LVM's commands: typed, with their complaints as kinds of errors. They take the locks of LVM, and wait for them.
import { AppError, type ErrorKind } from '#src/lib/errors.ts';
import { CommandError } from './command-error.ts';
import type { Argv, Host, RunResult } from './host.ts';
import { parseErrors, parseGroups, parseVolumes, type LogicalVolume, type VolumeGroup } from './lvm-reports.ts';

export type { LogicalVolume, VolumeGroup } from './lvm-reports.ts';

const COMMAND_LIMIT_MS = 5 * 60_000;
/** Made and kept by udevd: where it is, LVM and udevd tell each other when a device is ready. */
const UDEV_CONTROL = '/run/udev/control';
/** Else LVM waits for nobody, and makes the nodes of devices itself. */
const WITHOUT_UDEV = ['--config', 'activation{udev_sync=0 udev_rules=0}'];

/** In JSON the complaints are part of the report. */
const REPORT = ['--reportformat', 'json', '--units', 'b', '--nosuffix', '-o'];
const FAILED = 5;

const COMPLAINTS: readonly (readonly [RegExp, ErrorKind])[] = [
  [/Failed to find logical volume|not found in [Vv]olume group|Volume group "?[^" ]+"? not found/, 'not_found'],
  [/already exists/, 'conflict'],
  [/in use|is used by|is busy/, 'unavailable'],
  [/reserved|too long|invalid char|is invalid|Invalid (?:argument|name)|[Nn]ame .* invalid/, 'invalid'],
  [/insufficient free space|Insufficient (?:suitable|free)|has no more space|free space .* reached/i, 'unavailable'],
];

function translate(error: unknown): unknown {
  if (!(error instanceof CommandError) || error.exitCode === null) return error;
  const lines = error.stderr.split('\n').map((line) => line.trim());
  const said = lines.filter((line) => line !== '' && !line.startsWith('WARNING:')).join('; ');
  const kind = kindOfComplaint(said);
  return kind ? new AppError(kind, said, { cause: error }) : error;
}

function kindOfComplaint(text: string): ErrorKind | undefined {
  return COMPLAINTS.find(([pattern]) => pattern.test(text))?.[1];
}

export interface NewThinPool {
  readonly metadataBytes?: number | undefined;
  readonly stripes?: readonly string[];
  readonly tags?: readonly string[];
}

export interface NewLogicalVolume {
  readonly sizeBytes: number;
  /** The thin pool that it lies in; absent: in the group itself. */
  readonly pool?: string | undefined;
  readonly stripes?: readonly string[];
  readonly tags?: readonly string[];
}

export interface NewThinSnapshot {
  readonly of: string;
  readonly isReadonly: boolean;
  readonly tags?: readonly string[];
}

export class Lvm {
  readonly #host: Pick<Host, 'run' | 'exists'>;

  constructor(host: Pick<Host, 'run' | 'exists'>) {
    this.#host = host;
  }

  /** undefined: there is none of that name. */
  async group(name: string, signal: AbortSignal): Promise<VolumeGroup | undefined> {
    const columns = 'vg_name,vg_size,vg_free,vg_extent_size,vg_tags,pv_name';
    try {
      return parseGroups(await this.#report(['vgs', ...REPORT, columns, '--', name], signal));
    } catch (error) {
      if (isKind(error, 'not_found')) return undefined;
      throw error;
    }
  }

  /** On a device that has nothing on it: what it has is asked about, and nobody says yes. */
  async createGroup(
    name: string,
    device: string,
    { tags = [] }: { readonly tags?: readonly string[] },
    signal: AbortSignal,
  ): Promise<void> {
    await this.#run(['vgcreate', ...tagged(tags), '--', name, device], signal);
  }

  /** With all that is in it. */
  async removeGroup(name: string, signal: AbortSignal): Promise<void> {
    await this.#run(['vgremove', '--force', '--', name], signal);
  }

  /** A device of no group is LVM's no more. */
  async forgetDevice(device: string, signal: AbortSignal): Promise<void> {
    await this.#run(['pvremove', '--', device], signal);
  }

  /** The same, where it may be LVM's or not; what is in a group stays. */
  async forgetUnused(device: string, signal: AbortSignal): Promise<void> {
    await this.#run(['pvremove', '--', device], signal, [0, FAILED]);
  }

  /** Takes all of a device that has grown. */
  async growDevice(device: string, signal: AbortSignal): Promise<void> {
    await this.#run(['pvresize', '--', device], signal);
  }

  async tagGroup(name: string, tags: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#run(['vgchange', ...tagged(tags), '--', name], signal);
  }

  async untagGroup(name: string, tags: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#run(['vgchange', ...tags.flatMap((tag) => ['--deltag', tag]), '--', name], signal);
  }

  /** All that users see: parts of others are left out. */
  async volumes(group: string, signal: AbortSignal): Promise<readonly LogicalVolume[]> {
    return parseVolumes(await this.#report(listing(group), signal));
  }

  /** undefined: there is none, or no such group. */
  async volume(group: string, name: string, signal: AbortSignal): Promise<LogicalVolume | undefined> {
    try {
      return parseVolumes(await this.#report(listing(`${group}/${name}`), signal))[0];
    } catch (error) {
      if (isKind(error, 'not_found')) return undefined;
      throw error;
    }
  }

  /** Of all that is free in the group. */
  async createThinPool(
    group: string,
    name: string,
    { metadataBytes, stripes = [], tags = [] }: NewThinPool,
    signal: AbortSignal,
  ): Promise<void> {
    const metadata = metadataBytes === undefined ? [] : ['--poolmetadatasize', `${metadataBytes}b`];
    const options = ['--yes', '--wipesignatures', 'y', '--extents', '100%FREE', ...metadata, ...stripes];
    await this.#run(['lvcreate', ...options, ...tagged(tags), '--thinpool', name, '--', group], signal);
  }

  /** Takes what is free in its group. */
  async growThinPool(group: string, name: string, signal: AbortSignal): Promise<void> {
    const { freeBytes = 0 } = (await this.group(group, signal)) ?? {};
    if (freeBytes > 0) await this.#run(['lvextend', '--extents', '+100%FREE', '--', `${group}/${name}`], signal);
  }

  /** Active afterwards. AppError 'conflict' when it exists. */
  async create(
    group: string,
    name: string,
    { sizeBytes, pool, stripes = [], tags = [] }: NewLogicalVolume,
    signal: AbortSignal,
  ): Promise<void> {
    const common = ['--yes', '--wipesignatures', 'y', '--name', name, ...tagged(tags)];
    const size = `${sizeBytes}b`;
    const place =
      pool === undefined
        ? [...stripes, '--size', size, '--', group]
        : ['--thin', '--virtualsize', size, '--', `${group}/${pool}`];
    await this.#run(['lvcreate', ...common, ...place], signal);
  }

  /** Of a thin volume, in use or not: of one moment. Not active. AppError 'conflict' when it exists, 'not_found' without the origin. */
  async snapshot(
    group: string,
    name: string,
    { of, isReadonly, tags = [] }: NewThinSnapshot,
    signal: AbortSignal,
  ): Promise<void> {
    const options = ['--permission', isReadonly ? 'r' : 'rw', '--setactivationskip', 'y', '--name', name];
    await this.#run(['lvcreate', '--snapshot', ...options, ...tagged(tags), '--', `${group}/${of}`], signal);
  }

  /** Idempotent, whatever the volume says of its activation. */
  async activate(group: string, name: string, signal: AbortSignal): Promise<void> {
    await this.#run(['lvchange', '--activate', 'y', '--ignoreactivationskip', '--', `${group}/${name}`], signal);
  }

  /** Idempotent; AppError 'unavailable' while it is in use. */
  async deactivate(group: string, name: string, signal: AbortSignal): Promise<void> {
    await this.#run(['lvchange', '--activate', 'n', '--', `${group}/${name}`], signal);
  }

  async deactivateGroup(group: string, signal: AbortSignal): Promise<void> {
    await this.#run(['vgchange', '--activate', 'n', '--', group], signal);
  }

  /** Not writable, and not active unless it is asked for by name. Of one that is not active. */
  async seal(group: string, name: string, signal: AbortSignal): Promise<void> {
    const options = ['--permission', 'r', '--setactivationskip', 'y'];
    await this.#run(['lvchange', ...options, '--', `${group}/${name}`], signal);
  }

  async untag(group: string, names: readonly string[], tag: string, signal: AbortSignal): Promise<void> {
    if (names.length === 0) return;
    await this.#run(['lvchange', '--deltag', tag, '--', ...names.map((name) => `${group}/${name}`)], signal);
  }

  async tag(group: string, name: string, tag: string, signal: AbortSignal): Promise<void> {
    await this.#run(['lvchange', '--addtag', tag, '--', `${group}/${name}`], signal);
  }

  /** Of one in use, too. AppError 'conflict' when the new name is taken. */
  async rename(group: string, name: string, { to }: { readonly to: string }, signal: AbortSignal): Promise<void> {
    await this.#run(['lvrename', '--', group, name, to], signal);
  }

  /** What is in it is not looked at. */
  async resize(
    group: string,
    name: string,
    { sizeBytes }: { readonly sizeBytes: number },
    signal: AbortSignal,
  ): Promise<void> {
    // --fs ignore is newer than what many have; without --resizefs nothing is done to file systems either
    await this.#run(['lvresize', '--force', '--size', `${sizeBytes}b`, '--', `${group}/${name}`], signal);
  }

  /** Absent is success; AppError 'unavailable' while it is in use. */
  async remove(group: string, name: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#run(['lvremove', '--force', '--', `${group}/${name}`], signal);
    } catch (error) {
      if (!isKind(error, 'not_found')) throw error;
    }
  }

  async #report(argv: Argv, signal: AbortSignal): Promise<string> {
    const { stdout, exitCode, stderr } = await this.#run(argv, signal, [0, FAILED]);
    if (exitCode === 0) return stdout;
    const said = [...parseErrors(stdout), stderr.trim()].filter((text) => text !== '').join('; ');
    throw new AppError(kindOfComplaint(said) ?? 'internal', `${argv[0]}: ${said}`);
  }

  async #run([program, ...args]: Argv, signal: AbortSignal, okExitCodes = [0]): Promise<RunResult> {
    const quirks = (await this.#host.exists(UDEV_CONTROL)) ? [] : WITHOUT_UDEV;
    const argv: Argv = [program, ...quirks, ...args];
    try {
      return await this.#host.run(argv, { signal, timeoutMs: COMMAND_LIMIT_MS, okExitCodes });
    } catch (error) {
      throw translate(error);
    }
  }
}

/** Where the kernel has a volume that is active: hyphens in its names are doubled there. */
export function devicePath(group: string, name: string): string {
  return `/dev/mapper/${group.replaceAll('-', '--')}-${name.replaceAll('-', '--')}`;
}

function tagged(tags: readonly string[]): readonly string[] {
  return tags.flatMap((tag) => ['--addtag', tag]);
}

function listing(what: string): Argv {
  const columns = 'lv_name,lv_size,lv_attr,lv_tags,pool_lv,origin,data_percent';
  return ['lvs', ...REPORT, columns, '--', what];
}

function isKind(error: unknown, kind: ErrorKind): boolean {
  return error instanceof AppError && error.kind === kind;
}
