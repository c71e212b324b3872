// The host goes down and comes back: what is stopped, in which order, and what starts again (lxd-engine-contract section 4.5).
import { mkdir, utimes, writeFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { autostart, type Autostart, isNewBoot, noteBoot } from '#src/engine/instances/autostart.ts';
import { expireLogs } from '#src/engine/instances/log-expiry.ts';
import { startInstances, type InstancesUnderTest } from './engine-support.ts';

const signal = () => AbortSignal.timeout(10_000);
const OFF = { 'boot.autostart': 'false' };

async function waitForStatus(under: InstancesUnderTest, name: string, status: string): Promise<void> {
  await poll(() => under.instances.get('default', name).status === status || undefined, 10, signal());
}

describe('a host that goes down', () => {
  it('stops the highest stop priority first, and kills what takes too long', async () => {
    await using under = await startInstances();
    await under.create('late', { config: { 'boot.stop.priority': '1' }, start: true });
    await under.create('early', { config: { 'boot.stop.priority': '9' }, start: true });
    await under.create('deaf', { config: { 'boot.host_shutdown_timeout': '1' }, start: true });
    await under.create('stopped', { config: {} });
    under.runtime.deaf.add('deaf');
    under.events.length = 0;

    await under.engine.instances.stopAll(signal());

    expect(under.events).toEqual(['instance-shutdown', 'instance-shutdown', 'instance-stopped']);
    const asked = under.runtime.calls.filter((call) => call.startsWith('shutdown'));
    expect(asked).toEqual(['shutdown early', 'shutdown late', 'shutdown deaf']);
    const powers = ['late', 'early', 'deaf', 'stopped'].map(
      (name) => under.instances.get('default', name).record.config['volatile.last_state.power'],
    );
    expect(powers).toEqual(['RUNNING', 'RUNNING', 'RUNNING', undefined]);
  });

  it('comes back with what ran, and with nothing that is not to start', async () => {
    const first = await startInstances();
    await first.create('was-on', { start: true });
    await first.create('wanted', { config: { 'boot.autostart': 'true' } });
    await first.create('unwanted', { config: OFF, start: true });
    await first.create('off');
    await first.engine.instances.stopAll(signal());

    await using under = await first.restart();

    await waitForStatus(under, 'was-on', 'Running');
    await waitForStatus(under, 'wanted', 'Running');
    const rest = ['unwanted', 'off'].map((name) => under.instances.get('default', name).status);
    expect(rest).toEqual(['Stopped', 'Stopped']);
  });

  it('comes back with what ran even if the daemon is killed before it has started all', async () => {
    const first = await startInstances();
    await first.create('was-on', { start: true });
    await first.engine.instances.stopAll(signal());
    first.runtime.calls.length = 0;
    first.runtime.failures.set('was-on', 'not yet');
    const second = await first.restart();
    await poll(() => second.runtime.calls.includes('start was-on') || undefined, 10, signal());

    await using under = await second.restart();

    await waitForStatus(under, 'was-on', 'Running');
  });

  it('is not ready before it has started what is to start', async () => {
    const first = await startInstances();
    await first.create('was-on', { start: true });
    await first.engine.instances.stopAll(signal());

    await using under = await first.restart();

    const { instances } = under.engine;
    expect(instances.haveStarted()).toBe(false);
    await poll(() => instances.haveStarted() || undefined, 10, signal());
    expect(under.instances.get('default', 'was-on').status).toBe('Running');
  });
});

describe('autostart', () => {
  const plan = (names: Record<string, Partial<Autostart>>, under: InstancesUnderTest): readonly Autostart[] =>
    Object.entries(names).map(([name, some]) => {
      return { record: under.instances.get('default', name).record, priority: 0, delaySeconds: 0, ...some };
    });

  it('warns of an instance that does not start, goes on with the others, and takes the warning back', async () => {
    await using under = await startInstances();
    await under.create('bad');
    await under.create('good');
    const refused = new Set(['bad']);
    const { context } = under.engine;
    const started: string[] = [];
    const start = async (record: { readonly name: string }) => {
      if (refused.has(record.name)) throw new Error('no');
      started.push(record.name);
    };
    const parts = { context, supervisor: { status: () => 'Stopped' } as never, lifecycle: { start }, retryMs: 1 };

    await autostart(parts, plan({ bad: { priority: 1 }, good: {} }, under), signal());

    const warning = { type: 'Failed to autostart instance', entityUrl: '/1.0/instances/bad', severity: 'low' };
    expect(context.database.warnings.list()).toMatchObject([{ ...warning, status: 'new', message: 'no' }]);
    refused.clear();
    await autostart(parts, plan({ bad: {} }, under), signal());
    expect(started).toEqual(['good', 'bad']);
    expect(context.database.warnings.list()).toMatchObject([{ ...warning, status: 'resolved' }]);
  });

  it('starts equal priorities side by side, lower ones after them, and nothing during a delay', async () => {
    await using under = await startInstances();
    for (const name of ['a', 'b', 'c', 'd']) await under.create(name);
    const times = new Map<string, readonly [number, number]>();
    const start = async ({ name }: { readonly name: string }) => {
      const from = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 50));
      times.set(name, [from, performance.now()]);
    };
    const { context } = under.engine;
    const parts = { context, supervisor: { status: () => 'Stopped' } as never, lifecycle: { start } };

    const order = { a: { priority: 2 }, b: { priority: 2 }, c: { priority: 1, delaySeconds: 0.2 }, d: { priority: 1 } };
    await autostart(parts, plan(order, under), signal());

    const at = (name: string) => times.get(name) ?? [0, 0];
    expect(at('c')[0]).toBeGreaterThanOrEqual(Math.max(at('a')[1], at('b')[1]) - 1);
    expect(at('d')[0] - at('c')[1]).toBeGreaterThanOrEqual(190);
  });

  it('is for a host that has come up since, not for a daemon that starts again', async () => {
    await using under = await startInstances();
    const { context } = under.engine;

    const again = await isNewBoot(context);
    await writeFile(join(under.root, 'boot-id'), 'another\n');
    const rebooted = [await isNewBoot(context), await isNewBoot(context)];
    await noteBoot(context);

    expect([again, rebooted, await isNewBoot(context)]).toEqual([false, [true, true], false]);
  });
});

describe('logs', () => {
  it('go after two days, but not those of the present life', async () => {
    await using under = await startInstances();
    await under.create('c1');
    const { context } = under.engine;
    const old = new Date(Date.now() - 49 * 3_600_000);
    for (const [directory, file, when] of [
      ['c1', 'lxc.log', old],
      ['c1', 'exec_1.stdout', old],
      ['c1', 'exec_2.stdout', new Date()],
      ['gone', 'lxc.log', old],
      ['going', 'lxc.log', new Date()],
    ] as const) {
      await mkdir(join(context.paths.logs, directory), { recursive: true });
      await writeFile(join(context.paths.logs, directory, file), '');
      await utimes(join(context.paths.logs, directory, file), when, when);
    }

    await expireLogs(context);

    expect((await readdir(context.paths.logs)).toSorted()).toEqual(['c1', 'going']);
    expect((await readdir(join(context.paths.logs, 'c1'))).toSorted()).toEqual(['exec_2.stdout', 'lxc.log']);
  });
});
