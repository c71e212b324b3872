// Sessions of this host with targets, and their disks, as the kernel shows them in /sys.
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import type { Path } from './target.ts';

const SESSIONS = '/sys/class/iscsi_session';
const CONNECTIONS = '/sys/class/iscsi_connection';
const HOSTS = '/sys/class/iscsi_host';

type Files = Pick<Host, 'exists' | 'list' | 'readFile' | 'writeFile'>;

/** A session's name in /sys, such as session3. */
export type Session = string;

export async function sessionOf(host: Files, { iqn, address, port }: Path): Promise<Session | undefined> {
  for (const session of await host.list(SESSIONS)) {
    if ((await text(host, join(SESSIONS, session, 'targetname'))) !== iqn) continue;
    // session3 has connection3:0
    const connection = join(CONNECTIONS, `${session.replace('session', 'connection')}:0`);
    const [to, at] = [
      await text(host, join(connection, 'persistent_address')),
      await text(host, join(connection, 'persistent_port')),
    ];
    if (to === address && at === String(port)) return session;
  }
  return undefined;
}

/** Name of the disk, such as sdb. */
export async function diskOf(host: Files, session: Session, lun: number): Promise<string | undefined> {
  const units = await unitsOf(host, session);
  const unit = units.find(({ name }) => name.endsWith(`:${lun}`));
  return unit && (await host.list(join(unit.folder, 'block')))[0];
}

export async function hasDisks(host: Files, session: Session): Promise<boolean> {
  for (const { folder } of await unitsOf(host, session)) {
    if ((await host.list(join(folder, 'block'))).length > 0) return true;
  }
  return false;
}

/** Lets the kernel look for this unit of the target, and for no other one. */
export async function scan(host: Files, session: Session, lun: number): Promise<void> {
  for (const name of await host.list(HOSTS)) {
    if (!(await host.exists(join(HOSTS, name, 'device', session)))) continue;
    await host.writeFile(`/sys/class/scsi_host/${name}/scan`, `- - ${lun}`);
  }
}

interface Unit {
  /** HOST:CHANNEL:TARGET:LUN. */
  readonly name: string;
  readonly folder: string;
}

async function unitsOf(host: Files, session: Session): Promise<readonly Unit[]> {
  const device = join(SESSIONS, session, 'device');
  const units: Unit[] = [];
  for (const target of await host.list(device)) {
    if (!target.startsWith('target')) continue;
    for (const name of await host.list(join(device, target))) {
      if (/^\d+:\d+:\d+:\d+$/.test(name)) units.push({ name, folder: join(device, target, name) });
    }
  }
  return units;
}

/** '' for what has just gone. */
async function text(host: Files, path: string): Promise<string> {
  return (await host.readFile(path).catch(() => '')).trim();
}
