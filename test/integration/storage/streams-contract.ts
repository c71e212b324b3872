// What a driver that sends and receives its volumes as streams must do, on real pools.
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { expect, it } from 'vitest';
import type { StorageDriver, StorageStreams, VolumeRef } from '#drivers/storage/driver.ts';
import { silentLog } from '#src/lib/log.ts';
import { copyVolume } from '#src/engine/storage/copy-volume.ts';
import { signal } from '#test/contract/storage-contract.ts';
import type { RealPool } from './storage-files-contract.ts';

const A: VolumeRef = { kind: 'container', name: 'a' };
const B: VolumeRef = { kind: 'container', name: 'b' };

function streamsOf({ streams }: StorageDriver): StorageStreams {
  if (!streams) throw new Error('the driver has no streams');
  return streams;
}

async function write({ host, driver }: RealPool, volume: VolumeRef, text: string): Promise<void> {
  const { rootfsPath } = await driver.mountVolume(volume, null, signal());
  await host.writeFile(join(rootfsPath, 'text'), text);
  await driver.unmountVolume(volume, signal());
}

async function read({ host, driver }: RealPool, volume: VolumeRef, snapshot?: string): Promise<string> {
  if (snapshot === undefined) {
    const { rootfsPath } = await driver.mountVolume(volume, null, signal());
    const text = await host.readFile(join(rootfsPath, 'text'));
    await driver.unmountVolume(volume, signal());
    return text;
  }
  const { rootfsPath } = await driver.mountSnapshot({ volume, snapshot, idMap: null }, signal());
  const text = await host.readFile(join(rootfsPath, 'text'));
  await driver.unmountSnapshot(volume, snapshot, signal());
  return text;
}

async function bytes(streams: StorageStreams, part: Parameters<StorageStreams['send']>[0]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const take = async (stream: NodeJS.ReadableStream): Promise<void> => {
    for await (const chunk of stream) chunks.push(chunk as Buffer);
  };
  await streams.send(part, take, signal());
  return Buffer.concat(chunks);
}

export function storageStreamsContract(newPool: () => Promise<RealPool>): void {
  it('sends a volume with its snapshots to another pool, whole and then what is new', async () => {
    await using from = await newPool();
    await using to = await newPool();
    const [source, target] = [streamsOf(from.driver), streamsOf(to.driver)];
    for (const { driver } of [from, to]) await driver.createPool(signal());
    await from.driver.createVolume({ ...A, idMap: null }, signal());
    await write(from, A, 'one');
    await from.driver.createSnapshot(A, 'one', signal());
    await write(from, A, 'two');
    const before = await from.remains();

    expect(await source.canSend(A, signal())).toBe(true);
    await to.driver.createVolume({ ...B, idMap: null }, signal());
    const first = await bytes(source, { volume: A, snapshot: 'one' });
    await target.receive({ volume: B, snapshot: 'one', owners: null }, Readable.from([first]), signal());
    const rest = await bytes(source, { volume: A, base: 'one' });
    await target.receive({ volume: B, base: 'one', owners: null }, Readable.from([rest]), signal());

    expect(await read(to, B)).toBe('two');
    expect(await read(to, B, 'one')).toBe('one');
    expect(await to.driver.listSnapshots(B, signal())).toEqual(['one']);
    const guids = async (streams: StorageStreams, volume: VolumeRef) =>
      (await streams.points(volume, signal())).map(({ snapshot, guid }) => `${snapshot} ${guid}`);
    expect(await guids(target, B)).toEqual(await guids(source, A));
    expect(await from.remains()).toEqual(before);

    // The copy was used; it is brought up to date all the same.
    await write(to, B, 'used');
    await write(from, A, 'three');
    const update = await bytes(source, { volume: A, base: 'one' });
    await target.receive({ volume: B, base: 'one', owners: null }, Readable.from([update]), signal());
    expect(await read(to, B)).toBe('three');
    await to.driver.deleteVolume(B, signal());

    const copy = {
      from: { storage: from.driver, volume: A, idMap: null },
      to: { storage: to.driver, volume: { ...B, idMap: null } },
      snapshots: ['one'],
    };
    await copyVolume({ host: from.host, log: silentLog }, copy, signal());
    expect(await read(to, B)).toBe('three');
    expect(await guids(target, B)).toEqual(await guids(source, A));
    await from.driver.deleteVolume(A, signal());
    await to.driver.deleteVolume(B, signal());
    for (const { driver } of [from, to]) await driver.deletePool(signal());
  });

  it('keeps what was there when a stream breaks, is cut off or is none', async () => {
    await using pool = await newPool();
    const streams = streamsOf(pool.driver);
    await pool.driver.createPool(signal());
    await pool.driver.createVolume({ ...A, idMap: null }, signal());
    await write(pool, A, 'one'.repeat(100_000));
    const stream = await bytes(streams, { volume: A });
    await pool.driver.createVolume({ ...B, idMap: null }, signal());
    await write(pool, B, 'mine');
    const before = await pool.remains();
    const broken = [
      Readable.from([stream.subarray(0, stream.length - 10)]),
      Readable.from([Buffer.from('this is none')]),
      Readable.from([]),
      Readable.from(
        (async function* () {
          yield await Promise.resolve(stream.subarray(0, 1000));
          throw new Error('the peer is gone');
        })(),
      ),
    ];

    for (const one of broken) {
      const received = streams.receive({ volume: B, snapshot: 's', owners: null }, one, signal());
      await expect(received).rejects.toThrow();
      expect(await pool.driver.listSnapshots(B, signal())).toEqual([]);
      expect(await read(pool, B)).toBe('mine');
    }

    expect(await pool.remains()).toEqual(before);
  });

  it('ends with its reader, and with the signal', async () => {
    await using pool = await newPool();
    const streams = streamsOf(pool.driver);
    await pool.driver.createPool(signal());
    await pool.driver.createVolume({ ...A, idMap: null }, signal());
    await pool.driver.createVolume({ ...B, idMap: null }, signal());
    const before = await pool.remains();
    const stop = new AbortController();
    const endless = new Readable({ read: () => undefined });

    const failing = streams.send({ volume: A }, () => Promise.reject(new Error('no more')), signal());
    await expect(failing).rejects.toThrow('no more');
    const receiving = streams.receive({ volume: B, owners: null }, endless, stop.signal);
    setTimeout(() => stop.abort(new Error('cancelled')), 100);
    await expect(receiving).rejects.toThrow();

    expect(await pool.remains()).toEqual(before);
    expect(await pool.driver.listSnapshots(A, signal())).toEqual([]);
  });
}
