// What security.protection.shift forbids.
import { AppError } from '#src/lib/errors.ts';
import type { VolumeRef } from '../driver.ts';

/** AppError 'forbidden', in LXD's words, for a volume whose owners stay what they are. Called before they are changed. */
export function requireShiftable({ keepsOwners = false }: Pick<VolumeRef, 'keepsOwners'>): void {
  if (keepsOwners) throw new AppError('forbidden', 'Container is protected against filesystem shifting');
}
