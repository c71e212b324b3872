// What `source` of a pool means (lxd-engine-contract section 5.2).
import { isAbsolute, normalize } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { StorageContext } from '../driver.ts';
import { loopFilePath } from '../common/loop-file.ts';

export type Source =
  /** A file in the disks folder, made and formatted. */
  | { readonly kind: 'file'; readonly path: string }
  /** A block device that is formatted. */
  | { readonly kind: 'device'; readonly path: string }
  /** The file system on such a device, as records name it: devices change their names. */
  | { readonly kind: 'uuid'; readonly uuid: string }
  /** A directory or subvolume of a file system that others mount. */
  | { readonly kind: 'path'; readonly path: string };

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u;

export function parseSource(context: StorageContext): Source {
  const { source = '', size = '', 'btrfs.mount_options': options = '' } = context.config;
  const found = kindOfSource(source, loopFilePath(context));
  if (found.kind === 'path' && options !== '') {
    throw new AppError('invalid', 'btrfs.mount_options cannot be set when the source is a path: others mount it');
  }
  if (found.kind !== 'file' && size !== '') {
    throw new AppError('invalid', 'size can only be set when the pool is made on a file of its own');
  }
  return found;
}

function kindOfSource(source: string, file: string): Source {
  if (source === '' || source === file) return { kind: 'file', path: file };
  if (UUID.test(source)) return { kind: 'uuid', uuid: source };
  if (!isAbsolute(source)) throw new AppError('invalid', 'Invalid "source" property');
  return source.startsWith('/dev/') ? { kind: 'device', path: source } : { kind: 'path', path: normalize(source) };
}
