// Where a volume is, as Cinder tells it of targets of iSCSI; read with suspicion: it becomes arguments and paths.
import { AppError } from '#src/lib/errors.ts';
import { textOf } from '../common/connection-data.ts';
import type { VolumeConnection } from '../driver.ts';

/** A target at one of its portals, and the volume's unit there. */
export interface Path {
  readonly iqn: string;
  readonly address: string;
  readonly port: number;
  readonly lun: number;
}

export interface Login {
  readonly user: string;
  /** Never logged. */
  readonly password: string;
}

/** RFC 3720, 3.2.6.3. */
const IQN = /^(?:iqn\.|eui\.|naa\.)[A-Za-z0-9.:_-]{1,220}$/;
const PORTAL = /^(?:\[(?<v6>[0-9A-Fa-f:.]+)\]|(?<v4>[A-Za-z0-9.-]+)):(?<port>\d{1,5})$/;
/** What the first byte of a flat address holds. */
const LAST_LUN = 16_383;

/** All ways to the volume, the first one first; AppError 'invalid' for what cannot be one. */
export function pathsOf(connection: VolumeConnection): readonly Path[] {
  const { data } = connection;
  const first = path(textOf(connection, 'target_portal'), textOf(connection, 'target_iqn'), data['target_lun']);
  const [portals, iqns, luns] = [data['target_portals'], data['target_iqns'], data['target_luns']];
  const others = Array.isArray(portals) && Array.isArray(iqns) && Array.isArray(luns) ? portals : [];
  const all = [first, ...others.map((portal, at) => path(portal, (iqns as unknown[])[at], (luns as unknown[])[at]))];
  return all.filter((one, at) => all.findIndex((other) => isSame(one, other)) === at);
}

/** undefined: anybody may log in. */
export function loginOf(connection: VolumeConnection): Login | undefined {
  const method = connection.data['auth_method'];
  if (method === undefined || method === null || method === '') return undefined;
  if (method !== 'CHAP') throw new AppError('unsupported', 'targets are logged in to by CHAP, or without a password');
  const login = { user: textOf(connection, 'auth_username'), password: textOf(connection, 'auth_password') };
  if (/[\r\n]/.test(login.user + login.password)) throw new AppError('invalid', 'the login of a target is odd');
  return login;
}

/** As open-iscsi takes it. */
export function portalOf({ address, port }: Path): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function path(portal: unknown, iqn: unknown, lun: unknown): Path {
  if (typeof iqn !== 'string' || !IQN.test(iqn)) {
    throw new AppError('invalid', 'the target_iqn of a volume is no name of a target');
  }
  if (typeof lun !== 'number' || !Number.isInteger(lun) || lun < 0 || lun > LAST_LUN) {
    throw new AppError('invalid', `the target_lun of a volume is not a number from 0 to ${LAST_LUN}`);
  }
  return { iqn, lun, ...placeOf(portal) };
}

function placeOf(portal: unknown): Pick<Path, 'address' | 'port'> {
  const { v4, v6, port } = PORTAL.exec(typeof portal === 'string' ? portal : '')?.groups ?? {};
  const address = v6 ?? v4;
  const number = Number(port);
  if (address === undefined || address.startsWith('-') || number < 1 || number > 65_535) {
    throw new AppError('invalid', 'the target_portal of a volume is not ADDRESS:PORT');
  }
  return { address, port: number };
}

function isSame(one: Path, other: Path): boolean {
  return portalOf(one) === portalOf(other) && one.iqn === other.iqn && one.lun === other.lun;
}
