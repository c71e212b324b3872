// Volumes of guests in memory.
import type { GuestVolume } from '../driver.ts';
import type { FakeInstance } from './instance.ts';

/** Of the instance's own guest, not of the one that stands for it in a rescue. */
export function changeVolumes(
  instance: FakeInstance,
  change: (volumes: readonly GuestVolume[]) => readonly GuestVolume[],
): void {
  const own = instance.rescued ?? instance;
  own.volumes = change(own.volumes);
}
