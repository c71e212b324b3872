// Volumes that a guest has as file systems and not as devices: `lxd:volume_mount`, of the flavor, or of the server's own metadata, which
// goes before it. A container mounts no block devices; the engine has the file system served for it.
import { posix } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { truthOf } from '#src/lib/truth.ts';
import type { GuestVolume } from '#drivers/virt/driver.ts';
import { type Asking, findInstance, type Instance } from '../records.ts';
import type { BlockDevice } from './block-devices.ts';
import { isRoot } from './root-volume.ts';

const FOLDER = 'lxd:volume_mount';
const FORMAT = 'lxd:volume_format';
/** Tags that are no names of folders are not used as such. */
const NAME = /^[A-Za-z0-9_][\w.-]*$/;
const OF_SYSTEM = /^\/(dev|proc|sys|run)?(\/|$)/;

type Mount = NonNullable<GuestVolume['mount']>;

export interface MountWish {
  /** The folder of all volumes; null: the guest has devices. */
  readonly folder: string | null;
  readonly formats: boolean;
}

/** AppError 'invalid' when it makes no sense. */
export async function readMountWish(asking: Asking, instance: Instance): Promise<MountWish> {
  const metadata = instance.find('metadata') ?? (await ownMetadata(asking, instance));
  const specs = instance.find('flavor')?.find('extra_specs') ?? {};
  const [folder = '', format = ''] = [FOLDER, FORMAT].map((key) => ({ ...specs, ...metadata })[key]?.trim());
  const formats = format === '' ? false : truthOf(format);
  if (formats === undefined) throw new AppError('invalid', `${FORMAT} is neither true nor false`);
  const isOff = folder === '' || truthOf(folder) === false;
  return { folder: isOff ? null : checked(folder), formats };
}

async function ownMetadata(
  { conductor, context }: Asking,
  instance: Instance,
): Promise<Readonly<Record<string, string>>> {
  const found = await findInstance({ conductor, context }, instance.get('uuid'), ['metadata']);
  return found?.find('metadata') ?? {};
}

function checked(folder: string): string {
  const isPath = folder === posix.normalize(folder) && !folder.endsWith('/') && !/[\0\n]/.test(folder);
  if (isPath && folder.startsWith('/') && !OF_SYSTEM.test(folder)) return folder;
  throw new AppError('invalid', `${FOLDER} is no path for volumes: ${folder}`);
}

/** By the volume's tag, or by the name that its device would have: /volumes/database, /volumes/sdb. */
export function mountOf({ folder, formats }: MountWish, device: BlockDevice): Mount | undefined {
  if (folder === null || isRoot(device)) return undefined;
  const tag = device.find('tag') ?? '';
  const name = NAME.test(tag) ? tag : posix.basename(device.find('device_name') ?? '');
  return { path: posix.join(folder, name), formats };
}
