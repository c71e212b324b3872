// What a daemon refuses that was told to have unprivileged containers only: everything by which one gets the host's root.
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap } from '../types.ts';
import { parseRawIdMap } from './raw-idmap.ts';
import { parseBoolean } from './values.ts';

const REASON = 'LXD was configured to only allow unprivileged containers';

/** They replace the map, or bring in a file that may. */
const RAW_KEYS = /^\s*(lxc\.idmap|lxc\.include)\s*=/imu;

/** AppError 'invalid', in LXD's words. */
export function checkUnprivileged(config: ConfigMap): void {
  if (parseBoolean(config['security.privileged'])) throw new AppError('invalid', REASON);
  if (parseRawIdMap(config['raw.idmap'] ?? '').some(({ hostId }) => hostId === 0)) {
    throw new AppError('invalid', `Cannot map root user into container as ${REASON}`);
  }
  const [, key] = RAW_KEYS.exec(config['raw.lxc'] ?? '') ?? [];
  if (key !== undefined) throw new AppError('invalid', `${key} can't be set in raw.lxc as ${REASON}`);
}
