// rsync.bwlimit and rsync.compression of a pool (lxd-engine-contract section 3.4).
import { AppError } from '#src/lib/errors.ts';
import { parseBoolean } from '../instances/values.ts';
import type { RsyncSettings } from '../migration/rsync.ts';
import type { ConfigMap } from '../types.ts';

/** What rsync and LXD both take; without a unit rsync counts in KiB. */
const LIMIT = /^\d{1,15}(?:\.\d{1,6})?(?:[kmgtp]?(?:i?b)?)?$/iu;

/** AppError 'invalid' with LXD's text. */
export function checkRsyncSettings(config: ConfigMap): void {
  const { 'rsync.bwlimit': limit = '', 'rsync.compression': compression = '' } = config;
  if (limit !== '' && !LIMIT.test(limit))
    throw new AppError('invalid', `Invalid value for option "rsync.bwlimit": ${limit}`);
  if (compression === '') return;
  try {
    parseBoolean(compression);
  } catch (cause) {
    throw new AppError('invalid', `Invalid value for option "rsync.compression": ${compression}`, { cause });
  }
}

export function rsyncSettings(config: ConfigMap): RsyncSettings {
  const { 'rsync.bwlimit': bwlimit = '', 'rsync.compression': compression = '' } = config;
  const isLimited = bwlimit !== '' && !/^0+(?:\.0+)?\D*$/u.test(bwlimit);
  return { ...(isLimited && { bwlimit }), compression: compression === '' || parseBoolean(compression) };
}
