// Guests suspended to disk by a real CRIU: they go on where they were, and a plain start does without what was kept.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { POWER_STATE, type SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { criuPath, whyNoCriu } from '../criu.ts';
import { execIn } from '../guest-exec.ts';
import { makeBusyboxRootTarball } from '../images.ts';
import { describeWith } from '../support.ts';
import { type RunningEngine, startEngine } from './engines.ts';
import { busyboxSpec } from './guest-spec.ts';

const WORK = 'exec 3>>/root/count; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.1; done';

const needs = { root: true, commands: ['lxc-checkpoint', 'busybox'], lacks: whyNoCriu };

describeWith(needs, 'suspension to disk', () => {
  let engine: RunningEngine;
  let folder: string;
  let driver: LxdDriver;

  const soon = (): AbortSignal => AbortSignal.timeout(60_000 * timeFactor());

  async function spawn(): Promise<SpawnSpec> {
    const spec = busyboxSpec(join(folder, 'root.tar.gz'), 'suspended');
    await driver.spawn(spec, { network: async () => [] }, soon());
    return spec;
  }

  async function countsOf({ name }: SpawnSpec): Promise<readonly number[]> {
    const { stdout } = await execIn(engine.client, name, ['cat', '/root/count']);
    return stdout.split('\n').filter(Boolean).map(Number);
  }

  async function countsAbove(spec: SpawnSpec, size: number): Promise<readonly number[]> {
    const find = async () => {
      const counts = await countsOf(spec);
      return counts.length > size ? counts : undefined;
    };
    return await poll(find, 100, soon());
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'suspend-'));
    await makeBusyboxRootTarball(join(folder, 'root.tar.gz'));
    engine = await startEngine('lighterd');
    await engine.client.request('PATCH', '/1.0', { body: { config: { 'lighter.criu.path': criuPath } } });
    const endpoint = { kind: 'unix', socketPath: engine.socketPath } as const;
    const options = { ...DEFAULT_OPTIONS, endpoint, stateFolder: join(folder, 'state'), allowSuspendToDisk: true };
    driver = new LxdDriver({ log: silentLog, host: new LinuxHost(), options });
    await driver.start(soon());
  });

  afterAll(async () => {
    await driver.stop();
    await engine[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  it('keeps what the guest has in memory, and a start without it begins anew', async () => {
    const spec = await spawn();
    await execIn(engine.client, spec.name, ['sh', '-c', `setsid sh -c '${WORK}' </dev/null >/dev/null 2>&1 &`]);
    const before = await countsAbove(spec, 3);

    await driver.suspendToDisk(spec.uuid, soon());
    await driver.suspendToDisk(spec.uuid, soon());
    expect(await driver.powerState(spec.uuid, soon())).toBe(POWER_STATE.shutdown);
    await driver.resumeFromDisk(spec.uuid, [], soon());

    const after = await countsAbove(spec, before.length + 3);
    expect(after).toEqual(after.map((_count, index) => index + 1));

    await driver.suspendToDisk(spec.uuid, soon());
    await driver.powerOn(spec.uuid, [], soon());
    const fresh = await countsOf(spec);
    await sleep(1000);
    expect(await countsOf(spec)).toEqual(fresh);
    await driver.destroy(spec.uuid, soon());
  });

  it('leaves a guest alone that it cannot keep', async () => {
    const spec = await spawn();
    const { client } = engine;
    const { config, devices } = await client.instances.get(spec.name, soon());
    const more = { ...devices, eth0: { type: 'nic', nictype: 'p2p', name: 'eth0' } };
    const body = { config, devices: more, profiles: [] };
    const update = await client.instances.update(spec.name, body, { signal: soon() });
    await update.wait(soon());

    await expect(driver.suspendToDisk(spec.uuid, soon())).rejects.toMatchObject({ kind: 'unsupported' });

    expect(await driver.powerState(spec.uuid, soon())).toBe(POWER_STATE.running);
    await driver.destroy(spec.uuid, soon());
  });
});
