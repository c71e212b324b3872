// driver_volume_type `nfs`: a file of an export, which is mounted for all its volumes once, where Nova and os-brick have it.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { parseMountInfo } from '#src/host/mount-info.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { limited } from '#src/lib/wait.ts';
import { refuseEncrypted, textOf } from '../common/connection-data.ts';
import { LoopDevices } from '#src/host/loop-devices.ts';
import type { VolumeConnection, VolumeContext, VolumeDriver, VolumeModule } from '../driver.ts';

const UNDO_LIMIT_MS = 30_000;
/** The types that the kernel gives these mounts. Another one is the operator's own mount, and stays. */
const OURS = /^nfs4?$/;

interface Share {
  readonly source: string;
  readonly target: string;
  readonly file: string;
}

class NfsVolumes implements VolumeDriver {
  readonly types = ['nfs'];
  readonly #context: VolumeContext;
  readonly #loops: LoopDevices;
  /** By mount point: no volume is looked for while its export goes. */
  readonly #locks = new KeyedLock();

  constructor(context: VolumeContext) {
    this.#context = context;
    this.#loops = new LoopDevices(context.host);
  }

  async connect(connection: VolumeConnection, signal: AbortSignal): Promise<string> {
    refuseEncrypted(connection);
    const format = connection.data['format'] ?? 'raw';
    if (format !== 'raw') {
      throw new AppError('unsupported', 'only volumes of format raw are supported on this host');
    }
    const share = this.#share(connection);
    return this.#locks.run(
      share.target,
      async () => {
        await this.#mount(share, optionsOf(connection, this.#context.mountOptions), signal);
        try {
          return await this.#attach(share, signal);
        } catch (error) {
          await this.#unmountUnused(share, limited(UNDO_LIMIT_MS));
          throw error;
        }
      },
      signal,
    );
  }

  async #attach({ file }: Share, signal: AbortSignal): Promise<string> {
    const { host } = this.#context;
    // not a link: whoever may write to the export must not choose among the files of this host
    if (!(await host.exists(file)) || (await host.status(file)).kind !== 'file') {
      throw new AppError('not_found', `the export has no file ${file}`);
    }
    return this.#loops.attach(file, signal);
  }

  async disconnect(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    const share = this.#share(connection);
    await this.#locks.run(
      share.target,
      async () => {
        await this.#loops.detach(share.file, signal);
        await this.#unmountUnused(share, signal);
      },
      signal,
    );
  }

  async extend(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    await this.#loops.grow(this.#share(connection).file, signal);
  }

  #share(connection: VolumeConnection): Share {
    const source = textOf(connection, 'export');
    const name = textOf(connection, 'name');
    if (source.startsWith('-')) throw new AppError('invalid', 'the export of a volume is not HOST:/PATH');
    if (name.includes('/') || name === '.' || name === '..') {
      throw new AppError('invalid', 'the name of a volume is not the name of a file');
    }
    const target = join(this.#context.mountFolder, createHash('md5').update(source).digest('hex'));
    return { source, target, file: join(target, name) };
  }

  async #mount({ source, target }: Share, options: readonly string[], signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    if ((await this.#typeAt(target)) !== undefined) return;
    await host.makeDirectory(target, { mode: 0o755 });
    const argv = ['mount', '-t', 'nfs', ...(options.length > 0 ? ['-o', options.join(',')] : []), '--', source, target];
    await host.run(argv as [string, ...string[]], { signal });
  }

  /** Busy: other volumes have it. */
  async #unmountUnused({ target }: Share, signal: AbortSignal): Promise<void> {
    const { host, log } = this.#context;
    if (!OURS.test((await this.#typeAt(target)) ?? '')) return;
    await host.run(['umount', '--', target], { signal }).catch((error: unknown) => {
      if (kindOf(error) === 'unavailable') throw error;
      log.debug('an export stays mounted', { target, reason: messageOf(error) });
    });
  }

  /** undefined: nothing is mounted there. */
  async #typeAt(target: string): Promise<string | undefined> {
    const table = parseMountInfo(await this.#context.host.readFile('/proc/self/mountinfo'));
    return table.findLast((entry) => entry.target === target)?.type;
  }
}

/** The operator's, and what Cinder wants for this export: `-o` and words separated by commas, as its list of shares has it. */
function optionsOf({ data }: VolumeConnection, common: string | null): readonly string[] {
  const wanted = typeof data['options'] === 'string' ? data['options'].trim() : '';
  const own = wanted.replace(/^-o\s*/, '');
  if (/[\s\0]/.test(own) || own.startsWith('-')) throw new AppError('invalid', 'the mount options of a volume are odd');
  return [common ?? '', own].filter((part) => part !== '');
}

export const nfs: VolumeModule = { name: 'nfs', create: (context) => new NfsVolumes(context) };
