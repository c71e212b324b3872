// What users had written on volumes that come from elsewhere.
import type { VolumeNotes } from '../db/root-volumes.ts';

/** Of the keys only users' own are taken: the others are those of the pool where it was. */
export function ownNotes({ description, config }: VolumeNotes): VolumeNotes {
  const own = Object.entries(config).filter(([key, value]) => key.startsWith('user.') && value !== '');
  return { description, config: Object.fromEntries(own) };
}
