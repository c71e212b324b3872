// Moves of guests between real engines by their drivers: two of ours, and ours and a real LXD, both ways.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { POWER_STATE, type SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { makeBusyboxRootTarball } from '../images.ts';
import { describeWith } from '../support.ts';
import { type EngineName, type RunningEngine, startEngine } from './engines.ts';

const GUEST = {
  cloudInit: { metaData: 'instance-id: x\n', userData: '#cloud-config', vendorData: null, networkConfig: null },
  configDrive: [{ path: 'openstack/latest/user_data', content: Buffer.from([0, 255, 128, 10]) }],
  files: [],
  rootKey: null,
} as const;

interface Side {
  readonly engine: RunningEngine;
  readonly driver: LxdDriver;
}

const soon = (): AbortSignal => AbortSignal.timeout(60_000);

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

async function newSide(name: EngineName): Promise<Side> {
  const engine = await startEngine(name);
  const folder = join(dirname(engine.socketPath), 'compute');
  const driver = new LxdDriver({
    log: silentLog,
    host: new LinuxHost(),
    options: {
      ...DEFAULT_OPTIONS,
      stateFolder: folder,
      endpoint: { kind: 'unix', socketPath: engine.socketPath },
      storagePool: name === 'lxd' ? 'default' : null,
      migrationAddress: `127.0.0.1:${await freePort()}`,
    },
  });
  await driver.start(soon());
  return { engine, driver };
}

for (const [from, to, commands] of [
  ['lighterd', 'lighterd', []],
  ['lxd', 'lighterd', ['lxd']],
  ['lighterd', 'lxd', ['lxd']],
] as const) {
  describeWith({ root: true, commands: ['lxc-start', 'rsync', 'busybox', ...commands] }, `a move ${from}`, () => {
    describe(`to ${to}`, () => {
      let folder: string;
      let source: Side;
      let target: Side;

      beforeAll(async () => {
        folder = await mkdtemp(join(tmpdir(), 'moves-'));
        await makeBusyboxRootTarball(join(folder, 'root.tar.gz'));
        [source, target] = await Promise.all([newSide(from), newSide(to)]);
      }, 120_000);

      afterAll(async () => {
        for (const side of [source, target]) {
          await side?.driver.stop();
          await side?.engine[Symbol.asyncDispose]();
        }
        await rm(folder, { recursive: true, force: true });
      }, 120_000);

      const specOf = (): SpawnSpec => {
        const uuid = randomUUID();
        return {
          uuid,
          name: `instance-${uuid.slice(0, 8)}`,
          displayName: 'web',
          hostname: 'web',
          projectId: 'project',
          userId: 'user',
          flavor: {
            vcpus: 1,
            memoryMib: 128,
            rootGib: 1,
            cpuIds: null,
            ephemeralsGib: [1],
            swapMib: 0,
            extraSpecs: {},
          },
          image: {
            id: 'glance-id',
            cacheKey: 'root',
            name: 'root',
            diskFormat: 'raw',
            containerFormat: 'bare',
            sizeBytes: null,
            properties: {},
            open: async () => createReadStream(join(folder, 'root.tar.gz')),
          },
        };
      };

      async function stopped(): Promise<SpawnSpec> {
        const spec = specOf();
        await source.driver.spawn(spec, { network: async () => [], guest: async () => GUEST }, soon());
        await source.engine.client.files.put(spec.name, '/root/mark', { kind: 'file', content: Buffer.from('kept') });
        await source.engine.client.files.put(spec.name, '/mnt/mark', { kind: 'file', content: Buffer.from('too') });
        await source.driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
        return spec;
      }

      const guestOf = ({ image, ...spec }: SpawnSpec) => ({ ...spec, imageId: image?.id ?? '' });
      const listed = async ({ driver }: Side) => driver.listInstances(soon());

      it("takes the files along, arrives without being this host's, and starts once it is adopted", async () => {
        const spec = await stopped();
        const flavor = { ...spec.flavor, memoryMib: 256 };

        await using offer = await source.driver.moves.offer(spec.uuid, soon());
        const ticket: unknown = JSON.parse(JSON.stringify(offer.ticket));
        await Promise.all([
          target.driver.moves.receive({ ...guestOf(spec), flavor }, ticket, soon()),
          offer.fetched(soon()),
        ]);

        const { uuid, name } = spec;
        expect(await listed(target)).toEqual([{ uuid, name, powerState: POWER_STATE.shutdown, isArriving: true }]);
        expect(await listed(source)).toMatchObject([{ uuid, powerState: POWER_STATE.shutdown, isArriving: false }]);
        await target.driver.moves.adopt(uuid, soon());
        await target.driver.powerOn(uuid, [], soon());
        expect(await listed(target)).toEqual([{ uuid, name, powerState: POWER_STATE.running, isArriving: false }]);
        const { content } = await target.engine.client.files.get(name, '/root/mark');
        expect(await text(content)).toBe('kept');
        const onDisk = await target.engine.client.files.get(name, '/mnt/mark');
        expect([await text(onDisk.content), onDisk.uid, onDisk.gid]).toEqual(['too', 0, 0]);
        const settings = { 'limits.memory': '256MiB', 'user.user-data': '#cloud-config' };
        expect((await target.engine.client.instances.get(name)).config).toMatchObject(settings);
        const drive = await target.engine.client.files.get(name, '/config-drive/openstack/latest/user_data');
        expect(await buffer(drive.content)).toEqual(GUEST.configDrive[0].content);
        await source.driver.destroy(uuid, soon());
        await target.driver.destroy(uuid, soon());
      }, 120_000);

      it("replaces what an earlier one left, and leaves a guest alone that is this host's", async () => {
        const spec = await stopped();
        const move = async () => {
          await using offer = await source.driver.moves.offer(spec.uuid, soon());
          await target.driver.moves.receive(guestOf(spec), offer.ticket, soon());
          await offer.fetched(soon());
        };
        await move();
        await move();
        await target.driver.moves.adopt(spec.uuid, soon());

        await expect(move()).rejects.toMatchObject({ kind: 'conflict' });

        expect(await listed(target)).toMatchObject([{ uuid: spec.uuid, isArriving: false }]);
        // the offer that nobody took has ended: the guest can start
        await source.driver.powerOn(spec.uuid, [], soon());
        await source.driver.destroy(spec.uuid, soon());
        await target.driver.destroy(spec.uuid, soon());
      }, 120_000);

      it('that is withdrawn leaves nothing, and the guest as it was', async () => {
        const spec = await stopped();
        const offer = await source.driver.moves.offer(spec.uuid, soon());

        await source.driver.moves.withdraw(spec.uuid, soon());

        await expect(offer.fetched(soon())).rejects.toThrow();
        await expect(target.driver.moves.receive(guestOf(spec), offer.ticket, soon())).rejects.toThrow();
        expect(await listed(target)).toEqual([]);
        await source.driver.powerOn(spec.uuid, [], soon());
        await source.driver.destroy(spec.uuid, soon());
      }, 120_000);
    });
  });
}
