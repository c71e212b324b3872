// Volumes of a host that has no kernel: remembers what is connected for whom.
import { Readable } from 'node:stream';
import type { HostVolumes, VolumeUse } from '#src/compute/volumes/host-volumes.ts';
import type { CopyOptions } from '#src/host/device-copy.ts';
import type { VolumeConnection } from '#drivers/volume/driver.ts';

type Method = 'connect' | 'disconnect' | 'extend' | 'copy';

export class FakeHostVolumes implements HostVolumes {
  /** `VOLUME/INSTANCE`. */
  readonly connected = new Map<string, VolumeConnection>();
  /** Bytes by volume. */
  readonly contents = new Map<string, Buffer>();
  readonly extended: VolumeConnection[] = [];
  /** Names of programs that have a volume open. */
  readonly openBy = new Map<string, readonly string[]>();
  /** During a copy. */
  onCopy: (signal: AbortSignal) => void | Promise<void> = () => undefined;
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

  async users({ volumeId }: VolumeUse): Promise<readonly string[]> {
    return this.openBy.get(volumeId) ?? [];
  }

  async copy({ from, to }: Parameters<HostVolumes['copy']>[0], { signal }: CopyOptions): Promise<void> {
    this.#failOnDemand('copy');
    for (const use of [from, to])
      if (!this.connected.has(keyOf(use))) throw new Error(`${use.volumeId} is not connected`);
    await this.onCopy(signal);
    signal.throwIfAborted();
    this.contents.set(to.volumeId, this.contents.get(from.volumeId) ?? Buffer.alloc(0));
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
