// driver_volume_type `iscsi`: a unit of a target that this host logs in to, through open-iscsi.
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { CommandError } from '#src/host/command-error.ts';
import { deviceUsers } from '#src/host/device-users.ts';
import type { Host } from '#src/host/host.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import { refuseEncrypted } from '../common/connection-data.ts';
import type { VolumeConnection, VolumeContext, VolumeDriver, VolumeModule } from '../driver.ts';
import { diskOf, hasDisks, scan, type Session, sessionOf } from './sessions.ts';
import { type Login, loginOf, type Path, pathsOf, portalOf } from './target.ts';

/** Exit statuses of iscsiadm: it is so already. */
const SESSION_EXISTS = 15;
const NOTHING_THERE = 21;
const UNDO_LIMIT_MS = 60_000;
/** For the target to show the unit: Cinder may have just made it. */
const APPEAR_MS = 15_000;
const GO_MS = 10_000;
const POLL_MS = 100;
const RESCAN_EACH = 20;

/** Why a disk cannot go; undefined: nobody has it. */
export type DiskUse = (host: Pick<Host, 'run'>, device: string, signal: AbortSignal) => Promise<string | undefined>;

export class IscsiVolumes implements VolumeDriver {
  readonly types = ['iscsi'];
  readonly #context: VolumeContext;
  readonly #use: DiskUse;
  /** By target: no unit is looked for while its session goes. */
  readonly #locks = new KeyedLock();

  constructor(context: VolumeContext, use: DiskUse = diskUse) {
    this.#context = context;
    this.#use = use;
  }

  async connect(connection: VolumeConnection, signal: AbortSignal): Promise<string> {
    refuseEncrypted(connection);
    const login = loginOf(connection);
    const failures: unknown[] = [];
    for (const path of pathsOf(connection)) {
      try {
        return await this.#locks.run(path.iqn, () => this.#connectBy(path, login, signal), signal);
      } catch (error) {
        signal.throwIfAborted();
        failures.push(error);
        this.#context.log.warn('a portal of a volume does not serve it', {
          portal: portalOf(path),
          reason: messageOf(error),
        });
      }
    }
    throw failures[0];
  }

  async disconnect(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    for (const path of pathsOf(connection)) {
      await this.#locks.run(path.iqn, () => this.#disconnectFrom(path, signal), signal);
    }
  }

  async extend(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    let found = false;
    for (const path of pathsOf(connection)) {
      const session = await sessionOf(host, path);
      const disk = session && (await diskOf(host, session, path.lun));
      if (disk === undefined) continue;
      found = true;
      signal.throwIfAborted();
      await host.writeFile(`/sys/class/block/${disk}/device/rescan`, '1');
    }
    if (!found) throw new AppError('not_found', 'the volume is no disk of this host');
  }

  async #connectBy(path: Path, login: Login | undefined, signal: AbortSignal): Promise<string> {
    const { host } = this.#context;
    try {
      const session = (await sessionOf(host, path)) ?? (await this.#logIn(path, login, signal));
      const isNew = (await diskOf(host, session, path.lun)) === undefined;
      const disk = await this.#appeared(session, path, signal);
      // one that an earlier program left may have had another size
      if (!isNew) await host.writeFile(`/sys/class/block/${disk}/device/rescan`, '1');
      return `/dev/${disk}`;
    } catch (error) {
      await this.#leave(path, limited(UNDO_LIMIT_MS)).catch((left: unknown) => {
        this.#context.log.warn('a session stays', { portal: portalOf(path), reason: messageOf(left) });
      });
      throw error;
    }
  }

  async #logIn(path: Path, login: Login | undefined, signal: AbortSignal): Promise<Session> {
    await this.#node(path, ['--op', 'new'], signal);
    // a session is this host's to end, and shows the units that are asked for alone: others may belong to other hosts
    const settings = [
      ['node.startup', 'manual'],
      ['node.session.scan', 'manual'],
      ['node.session.auth.authmethod', login ? 'CHAP' : 'None'],
      ...(login ? [['node.session.auth.username', login.user] as const] : []),
      ...(login ? [['node.session.auth.password', login.password] as const] : []),
    ] as const;
    for (const [name, value] of settings) {
      await this.#node(path, ['--op', 'update', '--name', name, '--value', value], signal);
    }
    await this.#node(path, ['--login'], signal, SESSION_EXISTS);
    const session = await sessionOf(this.#context.host, path);
    if (session === undefined) throw new AppError('internal', `no session with ${portalOf(path)} after the login`);
    return session;
  }

  async #appeared(session: Session, { lun, iqn }: Path, signal: AbortSignal): Promise<string> {
    const { host } = this.#context;
    for (let looks = 0; looks * POLL_MS < APPEAR_MS; looks += 1) {
      const disk = await diskOf(host, session, lun);
      if (disk !== undefined && (await host.exists(`/dev/${disk}`))) return disk;
      if (looks % RESCAN_EACH === 0) await scan(host, session, lun);
      else await sleep(POLL_MS, signal);
      signal.throwIfAborted();
    }
    throw new AppError('not_found', `the target ${iqn} shows no unit ${lun}`);
  }

  async #disconnectFrom(path: Path, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const session = await sessionOf(host, path);
    const disk = session && (await diskOf(host, session, path.lun));
    if (session !== undefined && disk !== undefined) {
      const use = await this.#use(host, `/dev/${disk}`, signal);
      if (use !== undefined) throw new AppError('conflict', `the disk of the volume is still in use: ${use}`);
      await host.run(['blockdev', '--flushbufs', `/dev/${disk}`], { signal });
      await host.writeFile(`/sys/class/block/${disk}/device/delete`, '1');
      for (let waited = 0; (await diskOf(host, session, path.lun)) !== undefined; waited += POLL_MS) {
        if (waited >= GO_MS) throw new AppError('conflict', `the kernel does not let go of ${disk}`);
        await sleep(POLL_MS, signal);
      }
    }
    await this.#leave(path, signal);
  }

  /** The session, unless other volumes have it, and what open-iscsi knows of it. */
  async #leave(path: Path, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const session = await sessionOf(host, path);
    if (session !== undefined) {
      if (await hasDisks(host, session)) return;
      await this.#node(path, ['--logout'], signal, NOTHING_THERE);
    }
    await this.#node(path, ['--op', 'delete'], signal, NOTHING_THERE);
  }

  async #node(path: Path, args: readonly string[], signal: AbortSignal, fine?: number): Promise<void> {
    const argv = ['iscsiadm', '--mode', 'node', '--targetname', path.iqn, '--portal', portalOf(path), ...args] as const;
    try {
      await this.#context.host.run(argv, { signal, okExitCodes: [0, ...(fine === undefined ? [] : [fine])] });
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      // without the arguments, which may be a password
      const said = error.stderr
        .trim()
        .replaceAll(/^iscsiadm: /gm, '')
        .replaceAll('\n', '; ');
      const why = said || (error.exitCode === null ? messageOf(error.cause) : `status ${error.exitCode}`);
      throw new AppError(kindOf(error), `iscsiadm with ${portalOf(path)}: ${why}`);
    }
  }
}

/** Mounted, part of something, or open in a program, also one of a guest. */
async function diskUse(host: Pick<Host, 'run'>, device: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    // the kernel gives it to one alone
    await (await open(device, constants.O_RDONLY | constants.O_EXCL)).close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    return 'it is mounted, or part of another device';
  }
  const programs = await deviceUsers(host, device, signal);
  return programs.length === 0 ? undefined : programs.join(', ');
}

export const iscsi: VolumeModule = { name: 'iscsi', create: (context) => new IscsiVolumes(context) };
