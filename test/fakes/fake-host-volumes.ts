// Volumes of a host that has no kernel: remembers what is connected for whom.
import { Readable } from 'node:stream';
import type { HostVolumes, VolumeUse } from '#src/compute/volumes/host-volumes.ts';
import type { VolumeConnection } from '#drivers/volume/driver.ts';

type Method = 'connect' | 'disconnect' | 'extend';

export class FakeHostVolumes implements HostVolumes {
  /** `VOLUME/INSTANCE`. */
  readonly connected = new Map<string, VolumeConnection>();
  /** Bytes by volume. */
  readonly contents = new Map<string, Buffer>();
  readonly extended: VolumeConnection[] = [];
  readonly #failures = new Map<Method, Error>();

  failNext(method: Method, error: Error): void {
    this.#failures.set(method, error);
  }

  async connect(use: VolumeUse, connection: VolumeConnection): Promise<string> {
    this.#failOnDemand('connect');
    this.connected.set(keyOf(use), connection);
    return `/volumes/${keyOf(use)}`;
  }

  async disconnect(use: VolumeUse): Promise<void> {
    this.#failOnDemand('disconnect');
    this.connected.delete(keyOf(use));
  }

  async disconnectInstance(instanceUuid: string): Promise<void> {
    for (const key of this.connected.keys()) if (key.endsWith(`/${instanceUuid}`)) this.connected.delete(key);
  }

  async extend(connection: VolumeConnection): Promise<void> {
    this.#failOnDemand('extend');
    this.extended.push(connection);
  }

  async read(use: VolumeUse, bytes: number): Promise<Readable> {
    return Readable.from([(this.contents.get(use.volumeId) ?? Buffer.alloc(0)).subarray(0, bytes)]);
  }

  async keepOnly(instances: ReadonlySet<string>): Promise<readonly unknown[]> {
    for (const key of this.connected.keys()) if (!instances.has(key.split('/')[1] ?? '')) this.connected.delete(key);
    return [];
  }

  #failOnDemand(method: Method): void {
    const failure = this.#failures.get(method);
    this.#failures.delete(method);
    if (failure) throw failure;
  }
}

function keyOf({ volumeId, instanceUuid }: VolumeUse): string {
  return `${volumeId}/${instanceUuid}`;
}
