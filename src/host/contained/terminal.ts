// A new terminal in the devpts of a container.
import { closeSync, constants, openSync, type Stats } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import { terminalPeer } from '../kernel-descriptors.ts';
import { servedRoot } from './tree.ts';
import { at, type Place } from './walk.ts';

const DEVPTS = 0x1cd1;
const PTMX_DEVICE = 0x502;

/** Both are the caller's to close. */
export interface Terminal {
  readonly master: number;
  readonly peer: number;
}

/** Of the container whose init is `pid`. AppError 'invalid' when it has no terminals. */
export async function openTerminal(pid: number): Promise<Terminal> {
  const root = servedRoot(pid, null);
  try {
    return await at(root, { path: '/dev/pts/ptmx', follow: true }, openAt);
  } catch (cause) {
    throw new AppError('invalid', 'The instance has no terminals: /dev/pts/ptmx cannot be opened', { cause });
  } finally {
    closeSync(root.fd);
  }
}

async function openAt({ found }: Place): Promise<Terminal> {
  if (found?.stats.isCharacterDevice() !== true || found.stats.rdev !== PTMX_DEVICE) throw new Error('no ptmx');
  const path = `/proc/self/fd/${found.fd}`;
  if ((await statfs(path)).type !== DEVPTS) throw new Error('not of a devpts');
  const master = openSync(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
  try {
    return { master, peer: terminalPeer(master) };
  } catch (error) {
    closeSync(master);
    throw error;
  }
}

/** What is at /dev/console of the container whose init is `pid`; undefined: no device. */
export async function consoleDevice(pid: number): Promise<Stats | undefined> {
  const root = servedRoot(pid, null);
  try {
    return await at(root, { path: '/dev/console', follow: true }, async ({ found }) => {
      return found?.stats.isCharacterDevice() === true ? found.stats : undefined;
    });
  } finally {
    closeSync(root.fd);
  }
}
