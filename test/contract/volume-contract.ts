// What every volume driver promises, on a machine of memory and on a real one.
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { VolumeConnection, VolumeDriver } from '#drivers/volume/driver.ts';
import { timeFactor } from '#test/time-factor.ts';

export interface VolumeBench extends AsyncDisposable {
  readonly driver: VolumeDriver;
  readonly connection: VolumeConnection;
  /** Block devices of the host that the volume is, by path. */
  devices(): Promise<readonly string[]>;
  /** Size of a device. */
  sizeBytes(device: string): Promise<number>;
  /** Makes what is behind the volume this large. */
  grow(sizeBytes: number): Promise<void>;
  /** Takes away what is behind it. */
  remove(): Promise<void>;
}

const signal = (): AbortSignal => AbortSignal.timeout(10_000 * timeFactor());
const MIB = 2 ** 20;

export function volumeContract(makeBench: () => Promise<VolumeBench>): void {
  let bench: VolumeBench;
  beforeAll(async () => {
    bench = await makeBench();
  });
  afterAll(async () => {
    await bench[Symbol.asyncDispose]();
  });

  it('connects once, however often it is asked', async () => {
    const { driver, connection } = bench;

    const devices = [await driver.connect(connection, signal()), await driver.connect(connection, signal())];

    expect(devices[0]).toMatch(/^\/dev\//);
    expect(devices[1]).toBe(devices[0]);
    expect(await bench.devices()).toEqual([devices[0]]);
  });

  it('lets the device grow', async () => {
    const { driver, connection } = bench;
    const device = await driver.connect(connection, signal());

    await bench.grow(2 * MIB);
    await driver.extend(connection, signal());

    expect(await bench.sizeBytes(device)).toBe(2 * MIB);
  });

  it('disconnects, and says no word when there is nothing', async () => {
    const { driver, connection } = bench;

    await driver.disconnect(connection, signal());
    await driver.disconnect(connection, signal());

    expect(await bench.devices()).toEqual([]);
    await expect(driver.extend(connection, signal())).rejects.toMatchObject({ kind: 'not_found' });
  });

  it('refuses what is encrypted, and what makes no sense', async () => {
    const { driver, connection } = bench;
    const { type, data } = connection;

    const encrypted = { type, data: { ...data, encrypted: true } };
    await expect(driver.connect(encrypted, signal())).rejects.toMatchObject({ kind: 'unsupported' });
    await expect(driver.connect({ type, data: {} }, signal())).rejects.toMatchObject({ kind: 'invalid' });
    expect(await bench.devices()).toEqual([]);
  });

  it('leaves nothing when there is no such volume', async () => {
    const { driver, connection } = bench;
    await bench.remove();

    await expect(driver.connect(connection, signal())).rejects.toThrow();

    expect(await bench.devices()).toEqual([]);
    await driver.disconnect(connection, signal());
  });
}
