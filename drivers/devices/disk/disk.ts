// type=disk: a directory, a file or a file system of the host in the container. The root disk is the storage driver's.
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname, relative } from 'node:path';
import type { RuntimeThrottle } from '../../runtime/driver.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { HeldPath, MountFlag } from '#src/host/mounts.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { anyText, boolean, checkOptions, insidePath, isTrue, textOf, uint32 } from '../common/options.ts';
import { DevicePlaces } from '../common/places.ts';
import {
  type Device,
  type DeviceContext,
  type DeviceDriver,
  type DeviceModule,
  NOTHING,
  type StartedDevice,
  type Watched,
} from '../driver.ts';
import { checkBindOptions, parseMountOptions } from './mount-options.ts';
import { isServed, ServedDisks, validateServed } from './served.ts';
import { diskThrottles, THROTTLE_CHECKS, THROTTLE_OPTIONS } from './throttle.ts';

type Config = Readonly<Record<string, string>>;

const PROPAGATION: Readonly<Record<string, readonly MountFlag[]>> = {
  private: ['private'],
  shared: ['shared'],
  slave: ['slave'],
  unbindable: ['unbindable'],
  rprivate: ['private', 'recursive'],
  rshared: ['shared', 'recursive'],
  rslave: ['slave', 'recursive'],
  runbindable: ['unbindable', 'recursive'],
};
const OPTION_CHECKS = {
  pool: anyText,
  path: insidePath,
  source: anyText,
  readonly: boolean,
  recursive: boolean,
  required: boolean,
  shift: boolean,
  propagation: (value: string) => {
    if (!Object.hasOwn(PROPAGATION, value)) {
      throw new AppError('invalid', `Invalid value "${value}" (not one of [${Object.keys(PROPAGATION).join(' ')}])`);
    }
  },
  'raw.mount.options': anyText,
  'boot.priority': uint32,
  'lighter.served': boolean,
  'lighter.served.format': boolean,
  ...THROTTLE_CHECKS,
};

function validate(config: Config): void {
  const source = textOf(config, 'source');
  const path = textOf(config, 'path');
  refuseOthers(config);
  checkOptions(config, OPTION_CHECKS);
  if (path === '' || source === '') {
    throw new AppError('invalid', 'Disk entry is missing the required "source" or "path" property');
  }
  if (path === '/') throw new AppError('invalid', 'Root disk entry may not have a "source" property set');
  checkSource(config, source);
  validateServed(config);
  if (isTrue(config, 'recursive') && isTrue(config, 'readonly')) {
    throw new AppError('invalid', "Recursive read-only bind-mounts aren't currently supported by the kernel");
  }
}

function checkSource(config: Config, source: string): void {
  if (textOf(config, 'pool') === '') {
    if (source.startsWith('/')) return;
    throw new AppError('invalid', 'Source path must be absolute for local sources');
  }
  if (source.startsWith('/')) {
    throw new AppError('invalid', 'Storage volumes cannot be specified as absolute paths');
  }
  if (textOf(config, 'shift') !== '') {
    const instead = 'set "security.shifted=true" on the volume instead';
    throw new AppError('invalid', `The "shift" property cannot be used with custom storage volumes (${instead})`);
  }
  if (isTrue(config, 'recursive')) {
    throw new AppError('invalid', 'The recursive option is only supported for additional bind-mounted paths');
  }
}

/** What is understood and not for this kind of disk. */
function refuseOthers(config: Config): void {
  const source = textOf(config, 'source');
  if (/^(ceph|cephfs):/.test(source) || Object.keys(config).some((key) => key.startsWith('ceph.'))) {
    throw new AppError('invalid', 'Ceph disks are not supported by this server');
  }
  if (textOf(config, 'size') !== '') throw new AppError('invalid', 'Only the root disk may have a size quota');
}

/** undefined: absent. */
async function sourceStatus(source: string): Promise<Stats | undefined> {
  return stat(source).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  });
}

interface Source {
  readonly path: string;
  /** Seen through it; null: as it is. */
  readonly idMap: IdMapRange | null;
  readonly isBlock: boolean;
  /** To be kept while `path` is used. */
  readonly held?: HeldPath;
}

/** A path that leads nowhere: what was not found below the parent is not looked for again without it. */
const ABSENT = { path: '', idMap: null } as const;

class DiskDevice implements DeviceDriver {
  readonly info = { type: 'disk', liveOptions: [...THROTTLE_OPTIONS, 'boot.priority'] };
  readonly #context: DeviceContext;
  readonly #places: DevicePlaces;
  readonly #served: ServedDisks;

  constructor(context: DeviceContext) {
    this.#context = context;
    this.#places = new DevicePlaces(context);
    this.#served = new ServedDisks(context);
  }

  validate(config: Config): void {
    validate(config);
  }

  async check({ device, config }: Pick<Device, 'device' | 'config'>): Promise<void> {
    const source = textOf(config, 'source');
    if (textOf(config, 'pool') !== '') return checkBindOptions(config);
    const found = await sourceStatus(source);
    if (found?.isBlockDevice() !== true || isServed(config)) checkBindOptions(config);
    if (found || !isTrue(config, 'required', true)) return;
    throw new AppError('not_found', `Missing source path "${source}" for disk "${device}"`);
  }

  async start(device: Device, signal: AbortSignal): Promise<StartedDevice> {
    const { host } = this.#context;
    const { owner } = device;
    const source = await this.#source(device, signal);
    using _held = source.held;
    const found = await sourceStatus(source.path);
    await this.check(device);
    if (!found) return NOTHING;
    const place = this.#places.path(device, 'disk');
    const kind = found.isDirectory() || found.isBlockDevice() || isServed(device.config) ? 'dir' : 'file';
    if (!(await host.mounts.isMountPoint(place))) {
      await this.#places.open(owner.hostName);
      await (kind === 'dir' ? host.makeDirectory(place, { mode: 0o711 }) : host.writeFile(place, ''));
      const served = isServed(device.config) ? await this.#served.serve(device, source.path, signal) : undefined;
      const path = served ?? source.path;
      const isBlock = served === undefined && found.isBlockDevice();
      await this.#mount(device, place, { ...source, path, isBlock });
    }
    return this.started(device);
  }

  async started(device: Device): Promise<StartedDevice> {
    const { config } = device;
    const place = this.#places.path(device, 'disk');
    if (!(await this.#context.host.mounts.isMountPoint(place))) return NOTHING;
    // root of the host may not look at what is served for a container
    const kind = isServed(config) || (await stat(place)).isDirectory() ? 'dir' : 'file';
    const propagation = textOf(config, 'propagation');
    const bind = isTrue(config, 'recursive') ? 'rbind' : 'bind';
    const options = [bind, ...(propagation === '' ? [] : [propagation]), `create=${kind}`];
    const target = textOf(config, 'path').replace(/^\/+/, '');
    return { mounts: [{ source: place, target, type: 'none', options }], rules: [] };
  }

  async throttles(config: Config): Promise<Readonly<Record<string, RuntimeThrottle>>> {
    const source = textOf(config, 'source');
    return (await sourceStatus(source)) ? diskThrottles(this.#context.host, config, source) : {};
  }

  async #source({ config, owner }: Device, signal: AbortSignal): Promise<Omit<Source, 'isBlock'>> {
    const name = textOf(config, 'source');
    const pool = textOf(config, 'pool');
    if (pool === '') {
      const parent = this.#context.sourceParent?.(owner.project, name);
      if (parent === undefined) return { path: name, idMap: isTrue(config, 'shift') ? owner.idMap : null };
      const held = await this.#heldIn(parent, name, isTrue(config, 'shift'));
      return held ? { path: held.path, idMap: null, held } : ABSENT;
    }
    const { volumes } = this.#context;
    if (!volumes) throw new AppError('unsupported', 'Custom storage volumes are not supported here');
    return volumes.open({ project: owner.project, instance: owner.name, pool, name }, owner.idMap, signal);
  }

  /** Of a project whose disks must come from somewhere: whoever writes there may put links there. */
  async #heldIn(parent: string, source: string, isShifted: boolean): Promise<HeldPath | undefined> {
    // What is made through it by root would belong to root of the host, setuid programs as well.
    if (isShifted) {
      throw new AppError('invalid', 'The "shift" property cannot be used with a restricted source path');
    }
    try {
      return await this.#context.host.mounts.openBeneath(parent, relative(parent, source) || '.');
    } catch (cause) {
      if (kindOf(cause) !== 'forbidden') throw cause;
      const text = `Source path "${source}" resolves outside of restricted parent source path "${parent}"`;
      throw new AppError('forbidden', text, { cause });
    }
  }

  async #mount({ config }: Device, place: string, { path: source, idMap, isBlock }: Source): Promise<void> {
    const { mounts } = this.#context.host;
    const recursive: readonly MountFlag[] = isTrue(config, 'recursive') ? ['recursive'] : [];
    const raw = parseMountOptions(textOf(config, 'raw.mount.options'));
    const { ofFileSystem: flags, data } = raw;
    if (isBlock) await mounts.mount({ source, target: place, type: await this.#fileSystemOf(source), flags, data });
    else if (idMap) await mounts.bindMapped(source, place, idMap);
    else await mounts.mount({ source, target: place, type: '', flags: ['bind', ...recursive] });
    // What the host mounts below later shows inside, unless said otherwise.
    const propagation = PROPAGATION[textOf(config, 'propagation')] ?? ['slave', 'recursive'];
    await mounts.mount({ source: '', target: place, type: '', flags: propagation });
    const ofMount = [...(isTrue(config, 'readonly') ? (['readonly'] as const) : []), ...raw.ofMount];
    if (ofMount.length > 0) {
      await mounts.mount({ source: '', target: place, type: '', flags: ['remount', 'bind', ...ofMount] });
    }
  }

  async #fileSystemOf(source: string): Promise<string> {
    const { stdout } = await this.#context.host.run(['blkid', '-p', '-s', 'TYPE', '-o', 'value', '--', source]);
    return stdout.trim();
  }

  watched(device: Device): Watched | undefined {
    const { config } = device;
    if (isServed(config)) return { directories: [], hardware: false, hasEnded: () => this.#served.hasEnded(device) };
    if (isTrue(config, 'required', true) || textOf(config, 'pool') !== '') return undefined;
    return { directories: [dirname(textOf(config, 'source'))], hardware: false };
  }

  /** A source that came is mounted; one that goes stays mounted, as what uses it may not have ended. */
  async isStale(device: Device): Promise<boolean> {
    if (isServed(device.config)) return this.#served.hasEnded(device);
    const isMounted = await this.#context.host.mounts.isMountPoint(this.#places.path(device, 'disk'));
    return !isMounted && (await sourceStatus(textOf(device.config, 'source'))) !== undefined;
  }

  async refuseUsed(device: Device): Promise<void> {
    if (isServed(device.config)) await this.#served.refuseUsed(device);
  }

  async stop(device: Device): Promise<void> {
    await this.#places.clear(this.#places.path(device, 'disk'));
    const { owner, config } = device;
    if (isServed(config)) await this.#served.stop(device);
    const pool = textOf(config, 'pool');
    if (pool === '') return;
    const source = { project: owner.project, instance: owner.name, pool, name: textOf(config, 'source') };
    await this.#context.volumes?.close?.(source);
  }
}

export const disk: DeviceModule = { type: 'disk', create: (context) => new DiskDevice(context) };
