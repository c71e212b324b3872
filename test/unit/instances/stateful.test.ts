// The state of instances that do not run, in an engine whose machine is a fake: which of row, directory and container counts.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type InstancesUnderTest, startInstances } from './engine-support.ts';

const info = (under: InstancesUnderTest, name = 'c1') => under.instances.get('default', name);
const suspend = (under: InstancesUnderTest) => under.change('c1', { action: 'stop', stateful: true });
const resume = (under: InstancesUnderTest) => under.change('c1', { action: 'start', stateful: true });
const place = (under: InstancesUnderTest, path = 'c1/state') => join(under.root, 'instances', path);

async function running(): Promise<InstancesUnderTest> {
  const under = await startInstances();
  await under.create('c1', { start: true });
  under.runtime.calls.length = 0;
  return under;
}

async function snapshot(under: InstancesUnderTest, name: string): Promise<void> {
  await under.done(under.engine.instances.snapshots.create(info(under).record, { name, stateful: true }));
}

function restore(under: InstancesUnderTest, name: string, stateful: boolean): Promise<void> {
  return under.done(under.engine.instances.restore.start(info(under).record, name, { stateful }));
}

describe('a stateful stop', () => {
  it('keeps the state, which the next start takes and leaves nothing of', async () => {
    await using under = await running();

    await suspend(under);
    const stopped = info(under);
    const kept = existsSync(join(place(under), 'whole'));
    await resume(under);

    expect(stopped).toMatchObject({ status: 'Stopped', record: { stateful: true } });
    expect(stopped.record.config['volatile.last_state.power']).toBe('STOPPED');
    expect(kept).toBe(true);
    expect(info(under)).toMatchObject({ status: 'Running', record: { stateful: false } });
    expect(existsSync(place(under))).toBe(false);
    const calls = ['check criu', 'checkpoint c1 by criu', 'cleanUp c1', 'restore c1', 'start c1'];
    expect(under.runtime.calls).toEqual(calls);
    expect(under.events.slice(-2)).toEqual(['instance-stopped', 'instance-started']);
  });

  it('that fails leaves the container running and nothing behind', async () => {
    await using under = await running();
    under.runtime.refusal = 'CRIU could not';

    await expect(suspend(under)).rejects.toThrow('CRIU could not');

    expect(info(under)).toMatchObject({ status: 'Running', record: { stateful: false } });
    expect(existsSync(place(under, 'c1/dumping'))).toBe(false);
    await suspend(under);
    expect(info(under).record.stateful).toBe(true);
  });

  it('is refused with the reason of the host, and of what cannot be kept', async () => {
    await using under = await running();
    under.runtime.criuRefusal = "CRIU isn't installed";

    await expect(suspend(under)).rejects.toThrow("Unable to stop statefully. CRIU isn't installed");
    await expect(under.change('c1', { action: 'restart', stateful: true })).rejects.toThrow('knows no state');
    await under.create('e1', { start: true, ephemeral: true });
    await expect(under.change('e1', { action: 'stop', stateful: true })).rejects.toThrow('ephemeral');
    expect(info(under).status).toBe('Running');
  });

  it('uses the program that the configuration names, which is to be there', async () => {
    await using under = await running();
    const path = join(under.root, 'criu');
    const set = (value: string) => under.engine.config.update({ 'lighter.criu.path': value });

    await expect(set(path)).rejects.toThrow('there is no such program');
    await expect(set('criu')).rejects.toThrow('not an absolute path');
    writeFileSync(path, '');
    await set(path);
    await suspend(under);

    expect(under.runtime.calls).toContain(`checkpoint c1 by ${path}`);
  });
});

describe('a state', () => {
  it('is thrown away by a start without it', async () => {
    await using under = await running();
    await suspend(under);

    await under.change('c1', {});

    expect(info(under).record.stateful).toBe(false);
    expect(existsSync(place(under))).toBe(false);
    await under.change('c1', { action: 'stop', force: true });
    await expect(resume(under)).rejects.toThrow('Instance has no existing state to restore');
  });

  it('that cannot be restored stays, with the reason and what else can be done', async () => {
    await using under = await running();
    await suspend(under);
    under.runtime.failures.set('c1', 'no such file');

    await expect(resume(under)).rejects.toThrow('no such file. The state of "c1" is kept: start it stateless');

    expect(info(under)).toMatchObject({ status: 'Stopped', record: { stateful: true } });
    await resume(under);
    expect(info(under).status).toBe('Running');
  });

  it('goes along with a new name, and with a copy that is wanted with it', async () => {
    await using under = await running();
    await suspend(under);
    const source = { type: 'copy', source: 'c1' };
    const move = { name: 'c9', project: '', pool: '', instanceOnly: false };

    await under.create('c2', { source });
    await under.create('c3', { source, stateful: true });
    await under.done(under.engine.instances.moves.start(info(under).record, move));

    expect(info(under, 'c2').record.stateful).toBe(false);
    expect(existsSync(place(under, 'c2/state'))).toBe(false);
    expect(info(under, 'c3').record.stateful).toBe(true);
    await under.change('c3', { action: 'start', stateful: true });
    await under.change('c9', { action: 'start', stateful: true });
    expect(info(under, 'c9').status).toBe('Running');
  });

  it('does not outlive the root that it belongs to', async () => {
    await using under = await running();
    await under.done(under.engine.instances.snapshots.create(info(under).record, { name: 's1', stateful: false }));
    await suspend(under);

    await restore(under, 's1', false);

    expect(info(under)).toMatchObject({ status: 'Stopped', record: { stateful: false } });
    expect(existsSync(place(under))).toBe(false);
  });
});

describe('a stateful snapshot', () => {
  it('lets the container run on, and brings it back as it ran', async () => {
    await using under = await running();

    await snapshot(under, 's1');
    const row = under.engine.instances.snapshots.get(info(under).record, 's1');
    const status = await under.runtime.state({ name: 'c1', configPath: '', logPath: '', consoleLogPath: '' });
    await restore(under, 's1', true);

    expect(row.stateful).toBe(true);
    expect(status).toBe('running');
    expect(readFileSync(join(under.root, 'snapshots/c1/s1/state/whole'), 'utf8')).toBe('c1');
    expect(under.runtime.calls.slice(-4)).toEqual(['kill c1', 'cleanUp c1', 'restore c1', 'start c1']);
    expect(info(under)).toMatchObject({ status: 'Running', record: { stateful: false } });
  });

  it('starts an instance that was stopped, and gives its state to a copy', async () => {
    await using under = await running();
    await snapshot(under, 's1');
    await under.change('c1', { action: 'stop', force: true });

    await restore(under, 's1', true);
    await under.create('c2', { source: { type: 'copy', source: 'c1/s1' }, stateful: true, start: true });
    await under.create('c3', { source: { type: 'copy', source: 'c1' } });

    expect(info(under).status).toBe('Running');
    expect(under.runtime.calls).toContain('restore c2');
    expect(under.engine.instances.snapshots.get(info(under, 'c3').record, 's1').stateful).toBe(true);
    expect(existsSync(join(under.root, 'snapshots/c3/s1/state/whole'))).toBe(true);
  });

  it('that fails leaves nothing behind', async () => {
    await using under = await running();
    under.runtime.refusal = 'CRIU could not';

    await expect(snapshot(under, 's1')).rejects.toThrow('CRIU could not');

    expect(existsSync(join(under.root, 'snapshots/c1/s1'))).toBe(false);
    expect(await under.runtime.state({ name: 'c1', configPath: '', logPath: '', consoleLogPath: '' })).toBe('running');
  });

  it('whose state cannot be restored leaves the instance stopped, with root and state of it', async () => {
    await using under = await running();
    await snapshot(under, 's1');
    under.runtime.failures.set('c1', 'no such file');

    await expect(restore(under, 's1', true)).rejects.toThrow('The state of "c1" is kept');

    expect(info(under)).toMatchObject({ status: 'Stopped', record: { stateful: true } });
  });
});

describe('a daemon that comes after a crash', () => {
  it('takes up the state of a container that was stopped for it', async () => {
    const first = await running();

    await using under = await first.restart(() => {
      mkdirSync(place(first, 'c1/dumping'));
      writeFileSync(join(place(first, 'c1/dumping'), 'whole'), 'c1');
      first.runtime.powerOff('c1');
    });

    expect(info(under)).toMatchObject({ status: 'Stopped', record: { stateful: true } });
    await resume(under);
    expect(info(under).status).toBe('Running');
  });

  it('finds a container that runs and one that was not saved to the end as they are', async () => {
    const first = await running();
    await suspend(first);

    const second = await first.restart(() => {
      mkdirSync(place(first, 'c1/dumping'));
    });
    const kept = info(second);
    await resume(second);
    second.engine.context.database.instances.update(info(second).record.id, { stateful: true });
    await using under = await second.restart();

    expect(kept.record.stateful).toBe(true);
    expect(existsSync(place(under, 'c1/dumping'))).toBe(false);
    expect(info(under)).toMatchObject({ status: 'Running', record: { stateful: false } });
  });
});

it('a restored container that reboots is started again, and nothing of it is due when that is told', async () => {
  await using under = await running();
  await suspend(under);
  await resume(under);
  const notes: boolean[] = [];
  under.engine.events.subscribe({ types: new Set(['lifecycle']) }, (_text, { metadata }) => {
    if (metadata['action'] === 'instance-restarted') notes.push(existsSync(place(under, 'c1/starts-again')));
  });

  writeFileSync(place(under, 'c1/starts-again'), '');
  under.runtime.powerOff('c1');
  await expect.poll(() => under.events.at(-1)).toBe('instance-restarted');

  expect(info(under).status).toBe('Running');
  expect(notes).toEqual([false]);
});
