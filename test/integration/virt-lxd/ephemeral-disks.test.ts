// Ephemeral disks on our engine and on a real LXD: seen from inside, grown, added and taken away, and gone with their guest.
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { execIn } from '../guest-exec.ts';
import { makeBusyboxRootTarball } from '../images.ts';
import { describeWith } from '../support.ts';
import { chosenEngines, type EngineName, PROGRAMS, type RunningEngine, startEngine } from './engines.ts';
import { busyboxSpec } from './guest-spec.ts';

for (const name of chosenEngines(['lighterd', 'lxd'])) {
  describeWith({ root: true, commands: [PROGRAMS[name], 'busybox'] }, `ephemeral disks on ${name}`, () => suite(name));
}

function suite(name: EngineName): void {
  let engine: RunningEngine;
  let folder: string;
  let driver: LxdDriver;
  const soon = (): AbortSignal => AbortSignal.timeout(60_000);

  const specOf = (ephemeralsGib: readonly number[]): SpawnSpec =>
    busyboxSpec(join(folder, 'root.tar.gz'), 'disks', { ephemeralsGib });
  const spawn = async (spec: SpawnSpec): Promise<SpawnSpec> => {
    await driver.spawn(spec, { network: async () => [] }, soon());
    return spec;
  };
  const inside = async ({ name: guest }: SpawnSpec, script: string): Promise<string> =>
    (await execIn(engine.client, guest, ['sh', '-c', script])).stdout;
  const volumes = async (): Promise<readonly string[]> => {
    const [pool] = await engine.client.storagePools.list();
    return (await engine.client.storageVolumes.list(pool?.name ?? '')).map((volume) => volume.name).toSorted();
  };

  beforeAll(async () => {
    engine = await startEngine(name);
    folder = await mkdtemp(join(tmpdir(), 'ephemerals-'));
    await makeBusyboxRootTarball(join(folder, 'root.tar.gz'));
    const endpoint = { kind: 'unix', socketPath: engine.socketPath } as const;
    const options = { ...DEFAULT_OPTIONS, endpoint, stateFolder: join(folder, 'state') };
    driver = new LxdDriver({ log: silentLog, host: new LinuxHost(), options });
    await driver.start(soon());
  }, 120_000);

  afterAll(async () => {
    await driver.stop();
    await engine[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  }, 120_000);

  it("are mounted, the guest's root's, and kept over restarts and a rescue", async () => {
    const spec = await spawn(specOf([1, 2]));
    await inside(spec, 'echo first > /mnt/mark; echo second > /mnt/ephemeral1/mark; chown 7:8 /mnt/mark');

    const owners = await inside(spec, 'stat -c "%u %g %a" /mnt /mnt/ephemeral1');
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    if (driver.canRescue) {
      await driver.rescue(spec, { network: async () => [] }, soon());
      await driver.unrescue(spec.uuid, soon());
    }
    await driver.powerOn(spec.uuid, [], soon());

    expect(owners).toMatch(/^0 0 \d+\n0 0 \d+\n$/);
    expect(await inside(spec, 'cat /mnt/mark /mnt/ephemeral1/mark; stat -c "%u %g" /mnt/mark')).toBe(
      'first\nsecond\n7 8\n',
    );
    expect(await volumes()).toEqual([`ephemeral0-${spec.uuid}`, `ephemeral1-${spec.uuid}`]);
    await driver.destroy(spec.uuid, soon());
    expect(await volumes()).toEqual([]);
  }, 120_000);

  it('come and go with another flavor; those that stay keep what they hold', async () => {
    const spec = await spawn(specOf([1]));
    await inside(spec, 'echo kept > /mnt/mark');
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await driver.resize(spec.uuid, { ...spec.flavor, ephemeralsGib: [2, 1] }, soon());
    await driver.powerOn(spec.uuid, [], soon());
    const more = await inside(spec, 'cat /mnt/mark; stat -c %u /mnt/ephemeral1');
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    await driver.resize(spec.uuid, spec.flavor, soon());
    await driver.powerOn(spec.uuid, [], soon());

    expect(more).toBe('kept\n0\n');
    expect(await inside(spec, 'cat /mnt/mark')).toBe('kept\n');
    expect(await volumes()).toEqual([`ephemeral0-${spec.uuid}`]);
    await driver.destroy(spec.uuid, soon());
  }, 120_000);

  it('of no instance are removed at the next start, and those of others stay', async () => {
    const [pool] = await engine.client.storagePools.list();
    const key = { pool: pool?.name ?? '', name: `ephemeral0-${randomUUID()}` };
    const foreign = { ...key, name: 'ephemeral0-of-somebody' };
    await engine.client.storageVolumes.create(key, { 'user.nova.uuid': key.name.slice('ephemeral0-'.length) });
    await engine.client.storageVolumes.create(foreign, {});
    const spec = await spawn(specOf([1]));

    await driver.removeLeftovers(soon());

    expect(await volumes()).toEqual([foreign.name, `ephemeral0-${spec.uuid}`].toSorted());
    await driver.destroy(spec.uuid, soon());
    await engine.client.storageVolumes.remove(foreign);
  }, 120_000);
}
