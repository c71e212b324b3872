// What `source` of a pool means (lxd-engine-contract section 5.4).
import { isAbsolute } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { StorageContext } from '../driver.ts';
import { loopFilePath } from '../common/loop-file.ts';

export interface Source {
  /** A file in the disks folder, made for the pool; a block device that becomes a volume group; or a group that is there. */
  readonly kind: 'file' | 'device' | 'group';
  /** Of the file or device. */
  readonly path: string;
  readonly group: string;
}

const NAME = /^[A-Za-z0-9_+.][A-Za-z0-9_+.-]*$/u;

export function parseSource(context: Pick<StorageContext, 'config' | 'disksPath' | 'pool'>): Source {
  const { source = '', size = '', 'lvm.vg_name': group = '' } = context.config;
  const file = loopFilePath(context);
  const name = checkGroup(group === '' ? context.pool : group);
  if (source === '' || source === file) return { kind: 'file', path: file, group: name };
  refuse(size !== '', 'size can only be set when the pool is made on a file of its own');
  if (source.startsWith('/dev/')) return { kind: 'device', path: source, group: name };
  refuse(isAbsolute(source), 'Custom loop file locations are not supported');
  refuse(group !== '' && group !== source, 'Invalid combination of "source" and "lvm.vg_name" property');
  return { kind: 'group', path: '', group: checkGroup(source) };
}

function checkGroup(name: string): string {
  refuse(!NAME.test(name) || name === '.' || name === '..', `Invalid name of a volume group: ${JSON.stringify(name)}`);
  return name;
}

function refuse(isWrong: boolean, message: string): void {
  if (isWrong) throw new AppError('invalid', message);
}
