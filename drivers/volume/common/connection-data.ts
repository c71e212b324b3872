// What Cinder tells about a connection, read with suspicion: paths are made of it.
import { AppError } from '#src/lib/errors.ts';
import type { VolumeConnection } from '../driver.ts';

export function textOf({ type, data }: VolumeConnection, key: string): string {
  const value = data[key];
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value;
  throw new AppError('invalid', `a volume of type ${type} comes without ${key}`);
}

/** Encryption needs a device mapper between volume and guest. */
export function refuseEncrypted({ data }: VolumeConnection): void {
  if (data['encrypted'] === true) throw new AppError('unsupported', 'encrypted volumes are not supported on this host');
}
