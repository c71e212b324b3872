// Which instances have their root on a volume, and so take no room for it on this host. Those without an image do; others may as well,
// which only their block devices tell.
import { expectList } from '#src/nova/objects/wire.ts';
import type { Asking, Instance } from '../records.ts';
import { isVolumeBacked } from '../volumes/root-volume.ts';

export class VolumeRoots {
  /** By uuid, of instances with an image. */
  readonly #known = new Map<string, boolean>();

  /** Of a new one: its block devices are at hand. */
  learn(uuid: string, isOnVolume: boolean): void {
    this.#known.set(uuid, isOnVolume);
  }

  isOnVolume(instance: Instance): boolean {
    return !instance.find('image_ref') || this.#known.get(instance.get('uuid')) === true;
  }

  forget(uuid: string): void {
    this.#known.delete(uuid);
  }

  /** Asks for those that are not known yet, in one call. */
  async readOf({ conductor, context }: Asking, instances: readonly Instance[]): Promise<void> {
    const unknown = instances.filter((one) => one.find('image_ref') && !this.#known.has(one.get('uuid')));
    if (unknown.length === 0) return;
    const args = [unknown.map((instance) => instance.get('uuid'))];
    const call = { object: 'BlockDeviceMappingList', method: 'get_by_instance_uuids', args } as const;
    const devices = expectList(await conductor.classMethod(context, call), 'BlockDeviceMappingList');
    for (const instance of unknown) {
      const uuid = instance.get('uuid');
      const own = devices.filter((device) => device.get('instance_uuid') === uuid);
      this.#known.set(uuid, isVolumeBacked(instance, own));
    }
  }
}
