// What every virt driver promises. Run on the driver in memory, on the LXD driver with a fake server, and on real engines.
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  type GuestData,
  type LifecycleEvent,
  POWER_STATE,
  type SpawnHooks,
  type SpawnImage,
  type SpawnSpec,
  type VirtDriver,
} from '#drivers/virt/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import { poll } from '#src/lib/wait.ts';

export interface VirtUnderTest extends AsyncDisposable {
  readonly driver: VirtDriver;
  /** Bytes of an image that boots. */
  readonly rootfs: Buffer;
  /** How long one call may take. */
  readonly limitMs: number;
}

const VMDK = Buffer.concat([Buffer.from('KDMV', 'latin1'), Buffer.alloc(4096)]);
const GUEST: GuestData = {
  cloudInit: {
    metaData: 'instance-id: "x"\n',
    userData: '#cloud-config\nhostname: x\n',
    vendorData: null,
    networkConfig: '{"version":1,"config":[]}\n',
  },
  configDrive: [{ path: 'openstack/latest/meta_data.json', content: Buffer.from('{}') }],
  files: [],
  rootKey: null,
};
const noNetwork: SpawnHooks = { network: async () => [] };

export function virtContract(name: string, make: () => Promise<VirtUnderTest>): void {
  describe(`virt driver: ${name}`, () => {
    let under: VirtUnderTest;
    const spawned = new Set<string>();
    let opened = 0;

    const signal = (): AbortSignal => AbortSignal.timeout(under.limitMs);

    /** An image of its own identity for each test, so that no test finds another's in the cache. */
    const imageOf = (content: () => Readable, diskFormat = 'raw'): SpawnImage => ({
      id: randomUUID(),
      cacheKey: `test:${randomUUID()}`,
      name: 'image',
      diskFormat,
      containerFormat: 'bare',
      sizeBytes: null,
      properties: {},
      open: async () => {
        opened += 1;
        return content();
      },
    });

    const goodImage = (): SpawnImage => imageOf(() => Readable.from([under.rootfs]));

    const specOf = (image: SpawnImage = goodImage()): SpawnSpec => {
      const uuid = randomUUID();
      spawned.add(uuid);
      return {
        uuid,
        name: `instance-${uuid.slice(0, 8)}`,
        displayName: 'Web server (ü)',
        hostname: 'web-1',
        projectId: 'project',
        userId: 'user',
        flavor: { vcpus: 1, memoryMib: 128, rootGib: 1, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
        image,
      };
    };

    const spawn = async (spec: SpawnSpec = specOf(), hooks: SpawnHooks = noNetwork): Promise<SpawnSpec> => {
      await under.driver.spawn(spec, hooks, signal());
      return spec;
    };

    const uuids = async (): Promise<readonly string[]> =>
      (await under.driver.listInstances(signal())).map(({ uuid }) => uuid);

    beforeAll(async () => {
      under = await make();
      await under.driver.start(signal());
    });

    afterEach(async () => {
      for (const uuid of spawned) await under.driver.destroy(uuid, signal());
      spawned.clear();
      opened = 0;
    });

    afterAll(async () => {
      await under.driver.stop();
      await under[Symbol.asyncDispose]();
    });

    it('tells what the host has', async () => {
      const facts = await under.driver.hostFacts(signal());

      expect(facts.vcpus).toBeGreaterThan(0);
      expect(facts.memoryMib).toBeGreaterThan(facts.memoryUsedMib);
      expect(facts.diskGib).toBeGreaterThan(0);
      expect(facts.hypervisorHostname).not.toBe('');
      expect(facts.hypervisorVersion).toBeGreaterThan(0);
      expect(JSON.parse(facts.cpuInfo)).toMatchObject({ arch: facts.architecture });
    });

    it('lists a spawned instance by its uuid and name, running', async () => {
      const spec = await spawn();

      expect(await under.driver.listInstances(signal())).toContainEqual({
        uuid: spec.uuid,
        name: spec.name,
        powerState: POWER_STATE.running,
        isArriving: false,
      });
      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
    });

    it('refuses a uuid that exists and leaves the instance alone', async () => {
      const spec = await spawn();

      await expect(under.driver.spawn(spec, noNetwork, signal())).rejects.toMatchObject({ kind: 'conflict' });

      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
    });

    it('leaves nothing behind when the network fails, and rejects with that failure', async () => {
      const spec = specOf();
      const failure = new AppError('conflict', 'no port');
      const hooks: SpawnHooks = {
        network: async () => {
          throw failure;
        },
      };

      await expect(under.driver.spawn(spec, hooks, signal())).rejects.toBe(failure);

      expect(await uuids()).not.toContain(spec.uuid);
      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.nostate);
    });

    it('asks for what the guest is told when the network is there, and spawns with it', async () => {
      const asked: string[] = [];
      const hooks: SpawnHooks = {
        network: async () => {
          asked.push('network');
          return [];
        },
        guest: async () => {
          asked.push('guest');
          return {
            ...GUEST,
            files: [{ path: '/etc/lab/told', content: Buffer.from('yes') }],
            rootKey: 'ssh-rsa AAAA me',
          };
        },
      };

      const { uuid } = await spawn(specOf(), hooks);

      expect(asked).toEqual(['network', 'guest']);
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('leaves nothing behind when what the guest is told cannot be had', async () => {
      const spec = specOf();
      const failure = new AppError('unavailable', 'no metadata');
      const hooks: SpawnHooks = { ...noNetwork, guest: () => Promise.reject(failure) };

      await expect(under.driver.spawn(spec, hooks, signal())).rejects.toBe(failure);

      expect(await uuids()).not.toContain(spec.uuid);
    });

    it('gives the network up when the image cannot be had', async () => {
      const failure = new AppError('unavailable', 'glance is away');
      const spec = specOf({ ...goodImage(), open: () => Promise.reject(failure) });
      let ended = false;
      const hooks: SpawnHooks = {
        network: async (signal) => {
          await poll(() => (signal.aborted ? true : undefined), 5, AbortSignal.timeout(5000)).catch(() => undefined);
          ended = true;
          return [];
        },
      };

      await expect(under.driver.spawn(spec, hooks, signal())).rejects.toMatchObject({ message: 'glance is away' });

      expect(await uuids()).not.toContain(spec.uuid);
      await expect(poll(() => (ended ? true : undefined), 20, signal())).resolves.toBe(true);
    });

    it('leaves nothing behind when the caller goes away', async () => {
      const spec = specOf();
      const caller = new AbortController();
      const hooks: SpawnHooks = {
        network: async (signal) => {
          caller.abort(new Error('the caller left'));
          signal.throwIfAborted();
          return [];
        },
      };

      await expect(under.driver.spawn(spec, hooks, caller.signal)).rejects.toThrow('the caller left');

      expect(await uuids()).not.toContain(spec.uuid);
    });

    it('refuses what is no container image, saying so', async () => {
      const spec = specOf(imageOf(() => Readable.from([VMDK]), 'vmdk'));

      await expect(under.driver.spawn(spec, noNetwork, signal())).rejects.toMatchObject({
        kind: 'invalid',
        message: expect.stringContaining('vmdk') as string,
      });

      expect(await uuids()).not.toContain(spec.uuid);
    });

    it('forgets an image whose transfer failed, and fetches it anew for the next spawn', async () => {
      const failure = new AppError('unavailable', 'the transfer broke');
      let attempts = 0;
      const broken = imageOf(() => {
        attempts += 1;
        return attempts === 1 ? Readable.from(cutOff(under.rootfs, failure)) : Readable.from([under.rootfs]);
      });

      await expect(spawn(specOf(broken))).rejects.toMatchObject({ message: 'the transfer broke' });
      const spec = await spawn(specOf(broken));

      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
      expect(opened).toBe(2);
    });

    it('fetches an image once', async () => {
      const image = goodImage();

      await spawn(specOf(image));
      await spawn(specOf(image));

      expect(opened).toBe(1);
    });

    it('has an image ready before it is spawned from, and refuses one that cannot be', async () => {
      const image = goodImage();

      expect(await under.driver.cacheImage(image, signal())).toBe('cached');
      expect(await under.driver.cacheImage(image, signal())).toBe('existing');
      await spawn(specOf(image));

      expect(opened).toBe(1);
      const vmdk = imageOf(() => Readable.from([VMDK]), 'vmdk');
      await expect(under.driver.cacheImage(vmdk, signal())).rejects.toMatchObject({ kind: 'invalid' });
    });

    it('destroys a running instance, twice, and what never was', async () => {
      const spec = await spawn();

      await under.driver.destroy(spec.uuid, signal());
      await under.driver.destroy(spec.uuid, signal());
      await under.driver.destroy(randomUUID(), signal());

      expect(await uuids()).not.toContain(spec.uuid);
      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.nostate);
    });

    it('powers off at once, twice, and on again, twice', async () => {
      const { uuid } = await spawn();

      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.shutdown);

      await under.driver.powerOn(uuid, [], signal());
      await under.driver.powerOn(uuid, [], signal());
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('takes the limits of another flavor when off, twice, and starts with them', async () => {
      const spec = await spawn();
      await under.driver.powerOff(spec.uuid, { graceSeconds: 0 }, signal());
      const flavor = { ...spec.flavor, memoryMib: spec.flavor.memoryMib * 2 };

      await under.driver.resize(spec.uuid, flavor, signal());
      await under.driver.resize(spec.uuid, flavor, signal());

      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.shutdown);
      await under.driver.powerOn(spec.uuid, [], signal());
      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
    });

    it('powers off with grace', async () => {
      const { uuid } = await spawn();

      await under.driver.powerOff(uuid, { graceSeconds: 10 }, signal());

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.shutdown);
    });

    it('reboots a running instance through its init', async () => {
      const { uuid } = await spawn();

      await under.driver.softReboot(uuid, signal());

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('cannot reboot a stopped instance softly', async () => {
      const { uuid } = await spawn();
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());

      const kind = await under.driver.softReboot(uuid, signal()).then(
        () => 'none',
        (error: unknown) => (error instanceof AppError ? error.kind : 'other'),
      );

      expect(['conflict', 'unsupported']).toContain(kind);
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.shutdown);
    });

    it('pauses, twice, and lets go on, twice', async () => {
      const { uuid } = await spawn();

      await under.driver.pause(uuid, signal());
      await under.driver.pause(uuid, signal());
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.paused);

      await under.driver.unpause(uuid, signal());
      await under.driver.unpause(uuid, signal());
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('keeps the memory of a running guest on disk, or says that it cannot, and the guest runs on', async () => {
      const { uuid } = await spawn();

      const refusal = await under.driver.suspendToDisk(uuid, signal()).catch((error: unknown) => error);

      const kept = refusal === undefined;
      if (!kept) expect(refusal).toMatchObject({ kind: 'unsupported' });
      const after = await under.driver.powerState(uuid, signal());
      expect(after).toBe(kept ? POWER_STATE.shutdown : POWER_STATE.running);
      await under.driver.resumeFromDisk(uuid, [], signal());
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      await expect(under.driver.suspendToDisk(uuid, signal())).rejects.toMatchObject({ kind: 'conflict' });
    });

    it('powers off, and destroys, what is paused', async () => {
      const [{ uuid: first }, { uuid: second }] = [await spawn(), await spawn()];
      await under.driver.pause(first, signal());
      await under.driver.pause(second, signal());

      await under.driver.powerOff(first, { graceSeconds: 0 }, signal());
      await under.driver.destroy(second, signal());

      expect(await under.driver.powerState(first, signal())).toBe(POWER_STATE.shutdown);
      expect(await uuids()).not.toContain(second);
    });

    it('neither pauses nor measures what is stopped', async () => {
      const { uuid } = await spawn();
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());

      await expect(under.driver.pause(uuid, signal())).rejects.toMatchObject({ kind: 'conflict' });
      await expect(under.driver.unpause(uuid, signal())).rejects.toMatchObject({ kind: 'conflict' });
      await expect(under.driver.usage(uuid, signal())).rejects.toMatchObject({ kind: 'conflict' });
    });

    it('measures what a running instance has used', async () => {
      const { uuid } = await spawn();

      const usage = await under.driver.usage(uuid, signal());

      expect(usage.cpuNanoseconds).toBeGreaterThan(0);
      expect(usage.memoryBytes).toBeGreaterThan(0);
      expect(usage.processes).toBeGreaterThan(0);
    });

    it('takes away an interface that is not there', async () => {
      const { uuid } = await spawn();

      await under.driver.detachNic(uuid, '00:16:3e:00:00:01', signal());

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('gives a running guest a block device, and takes it back', async () => {
      const { uuid } = await spawn();
      const volume = { volumeId: randomUUID(), hostPath: '/dev/loop0', guestPath: '/dev/sdb' };

      await under.driver.attachVolume(uuid, volume, signal());
      await under.driver.attachVolume(uuid, volume, signal());
      await under.driver.detachVolume(uuid, volume.volumeId, signal());

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('takes away a volume that is not there', async () => {
      const { uuid } = await spawn();

      await under.driver.detachVolume(uuid, randomUUID(), signal());
      await under.driver.setVolumes(uuid, [], signal());

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
    });

    it('does not find what is absent', async () => {
      const uuid = randomUUID();
      const absent = { kind: 'not_found' };

      await expect(under.driver.powerOn(uuid, [], signal())).rejects.toMatchObject(absent);
      await expect(under.driver.powerOff(uuid, { graceSeconds: 0 }, signal())).rejects.toMatchObject(absent);
      const flavor = {
        vcpus: 1,
        memoryMib: 64,
        rootGib: 1,
        cpuIds: null,
        ephemeralsGib: [],
        swapMib: 0,
        extraSpecs: {},
      };
      await expect(under.driver.resize(uuid, flavor, signal())).rejects.toMatchObject(absent);
      await expect(under.driver.softReboot(uuid, signal())).rejects.toMatchObject(absent);
      await expect(under.driver.pause(uuid, signal())).rejects.toMatchObject(absent);
      await expect(under.driver.suspendToDisk(uuid, signal())).rejects.toMatchObject(absent);
      await expect(under.driver.resumeFromDisk(uuid, [], signal())).rejects.toMatchObject(absent);
      await expect(under.driver.detachNic(uuid, '00:16:3e:00:00:01', signal())).rejects.toMatchObject(absent);
      await expect(under.driver.detachVolume(uuid, randomUUID(), signal())).rejects.toMatchObject(absent);
      await expect(under.driver.setVolumes(uuid, [], signal())).rejects.toMatchObject(absent);
      await expect(under.driver.usage(uuid, signal())).rejects.toMatchObject(absent);
      await expect(under.driver.consoleLog(uuid, 100, signal())).rejects.toMatchObject(absent);
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.nostate);
    });

    it('gives the end of the console log, of running and of stopped instances', async () => {
      const { uuid } = await spawn();
      const log = async (bytes: number): Promise<Uint8Array> => under.driver.consoleLog(uuid, bytes, signal());
      await poll(async () => ((await log(1000)).length > 8 ? true : undefined), 100, signal());

      expect((await log(5)).length).toBe(5);
      expect((await log(0)).length).toBe(0);

      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      expect((await log(1000)).length).toBeGreaterThan(8);
    });

    it('gives a snapshot of a guest that runs on, and another guest boots from it', async () => {
      const { uuid } = await spawn();

      const snapshot = await under.driver.snapshot(uuid, signal());
      const content = await buffer(await snapshot.open(signal()));
      await snapshot[Symbol.asyncDispose]();

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
      const copy = await spawn(specOf(imageOf(() => Readable.from([content]), snapshot.diskFormat)));
      expect(await uuids()).toEqual(expect.arrayContaining([uuid, copy.uuid]));
    });

    it('gives a snapshot of a stopped guest, and none of an absent one', async () => {
      const { uuid } = await spawn();
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());

      await using snapshot = await under.driver.snapshot(uuid, signal());
      const content = await buffer(await snapshot.open(signal()));

      expect(content.length).toBeGreaterThan(0);
      await expect(under.driver.snapshot(randomUUID(), signal())).rejects.toMatchObject({ kind: 'not_found' });
    });

    it('sets the password of a user that there is, while the guest runs', async () => {
      const { uuid } = await spawn();

      await under.driver.setPassword(uuid, { user: 'root', password: 'pass:word with spaces' }, signal());
      const unknown = under.driver.setPassword(uuid, { user: 'nobody-here', password: 'x' }, signal());
      await expect(unknown).rejects.toMatchObject({ kind: 'invalid' });
      const absent = under.driver.setPassword(randomUUID(), { user: 'root', password: 'x' }, signal());
      await expect(absent).rejects.toMatchObject({ kind: 'not_found' });
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      const stopped = under.driver.setPassword(uuid, { user: 'root', password: 'x' }, signal());
      await expect(stopped).rejects.toMatchObject({ kind: 'conflict' });
    });

    it('rescues a stopped instance: another guest stands for it until that is taken away', async () => {
      const spec = await spawn();
      const { uuid } = spec;
      const rescue = (hooks = noNetwork) => under.driver.rescue({ ...spec, image: goodImage() }, hooks, signal());
      if (!under.driver.canRescue) {
        await expect(rescue()).rejects.toMatchObject({ kind: 'unsupported' });
        return;
      }
      await expect(rescue()).rejects.toMatchObject({ kind: 'conflict' });
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      const failure = new AppError('conflict', 'no port');
      const failing = { network: () => Promise.reject(failure) };
      await expect(rescue(failing)).rejects.toBe(failure);
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.shutdown);

      await rescue();

      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.running);
      expect((await uuids()).filter((one) => one === uuid)).toHaveLength(1);
      await expect(rescue()).rejects.toMatchObject({ kind: 'conflict' });
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      await under.driver.powerOn(uuid, [], signal());
      await under.driver.unrescue(uuid, signal());
      expect(await under.driver.powerState(uuid, signal())).toBe(POWER_STATE.shutdown);
      await under.driver.unrescue(uuid, signal());
      await under.driver.powerOn(uuid, [], signal());
      expect(await under.driver.listInstances(signal())).toContainEqual({
        uuid,
        name: spec.name,
        powerState: POWER_STATE.running,
        isArriving: false,
      });
    });

    it('destroys a rescued instance with the guest that stands for it', async () => {
      if (!under.driver.canRescue) return;
      const spec = await spawn();
      await under.driver.powerOff(spec.uuid, { graceSeconds: 0 }, signal());
      await under.driver.rescue(spec, noNetwork, signal());

      await under.driver.destroy(spec.uuid, signal());

      expect(await uuids()).not.toContain(spec.uuid);
      expect(await under.driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.nostate);
    });

    it('reports what happens to instances until nobody listens', async () => {
      const events: LifecycleEvent[] = [];
      const listening = under.driver.onLifecycle((event) => events.push(event));
      const { uuid } = await spawn();
      const seen = async (event: LifecycleEvent['event']): Promise<boolean> =>
        poll(
          () => (events.some((each) => each.uuid === uuid && each.event === event) ? true : undefined),
          10,
          signal(),
        );

      await expect(seen('started')).resolves.toBe(true);
      await under.driver.powerOff(uuid, { graceSeconds: 0 }, signal());
      await expect(seen('stopped')).resolves.toBe(true);

      listening[Symbol.dispose]();
      events.length = 0;
      await under.driver.powerOn(uuid, [], signal());
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(events).toEqual([]);
    });
  });
}

async function* cutOff(content: Buffer, failure: Error): AsyncGenerator<Buffer> {
  yield content.subarray(0, Math.floor(content.length / 2));
  throw failure;
}
