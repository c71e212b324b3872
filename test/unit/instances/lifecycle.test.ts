// Instances over their lives: what operations do, what is undone, and what a daemon finds at its start.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { autostartOrder } from '#src/engine/instances/autostart.ts';
import type { InstanceRecord } from '#src/engine/db/records.ts';
import { startInstances } from './engine-support.ts';

describe('creating', () => {
  it('makes an instance with its volatile keys, and starts it in the same operation', async () => {
    await using under = await startInstances();

    await under.create('c1', { start: true, config: { 'limits.processes': '7' } });

    const { record, status } = under.instances.get('default', 'c1');
    expect(status).toBe('Running');
    expect(record.config).toMatchObject({
      'volatile.uuid': record.uuid,
      'volatile.last_state.power': 'RUNNING',
      'volatile.last_state.idmap': '[]',
    });
    expect(record.lastUsedAt > record.createdAt).toBe(true);
    expect(under.runtime.specs.get('c1')?.limits).toEqual({ processes: 7 });
    expect(under.events.slice(-2)).toEqual(['instance-created', 'instance-started']);
    expect(existsSync(join(under.root, 'instances/c1/transition'))).toBe(false);
  });

  it('gives a name to an instance that has none', async () => {
    await using under = await startInstances();

    await under.create('');

    expect(under.instances.names('default')[0]).toMatch(/^[a-z]+-[a-z]+$/);
  });

  it('keeps the instance when only its start fails', async () => {
    await using under = await startInstances();
    under.runtime.failures.set('c1', 'no init');

    await expect(under.create('c1', { start: true })).rejects.toThrow('no init');

    const { status, record } = under.instances.get('default', 'c1');
    expect(status).toBe('Stopped');
    expect(record.config['volatile.last_state.power']).toBeUndefined();
    expect([...under.storage.mounted]).toEqual([]);
  });

  it('lets one of two creations of a name win', async () => {
    await using under = await startInstances();

    const results = await Promise.allSettled([under.create('c1'), under.create('c1')]);

    const failures = results.flatMap((result) => (result.status === 'rejected' ? [String(result.reason)] : []));
    expect(failures).toEqual([
      'Error: Failed creating instance record: Add instance info to the database: This "instances" entry already exists',
    ]);
    expect(under.instances.names('default')).toEqual(['c1']);
    expect([...under.storage.instances]).toEqual(['c1']);
  });

  it('expands profiles in order, the instance last', async () => {
    await using under = await startInstances();
    const content = { description: '', devices: {} };
    under.engine.profiles.create('default', 'a', { ...content, config: { 'user.x': 'a', 'user.y': 'a' } });
    under.engine.profiles.create('default', 'b', { ...content, config: { 'user.x': 'b' } });

    await under.create('c1', { profiles: ['default', 'a', 'b'], config: { 'user.y': 'own' } });

    const { expanded } = under.instances.get('default', 'c1');
    expect(expanded.config).toMatchObject({ 'user.x': 'b', 'user.y': 'own' });
    expect(expanded.devices['root']).toMatchObject({ path: '/', pool: 'default' });
  });
});

describe('power', () => {
  it('refuses changes that do not fit the state, in LXD’s words', async () => {
    await using under = await startInstances();
    await under.create('c1');

    for (const action of ['stop', 'restart'] as const) {
      await expect(under.change('c1', { action })).rejects.toThrow('The instance is already stopped');
    }
    await under.change('c1', { action: 'start' });
    await expect(under.change('c1', { action: 'start' })).rejects.toThrow('The instance is already running');
    await expect(under.change('c1', { action: 'unfreeze' })).rejects.toThrow('The container is already running');
    await under.change('c1', { action: 'freeze' });
    await expect(under.change('c1', { action: 'freeze' })).rejects.toThrow('The container is already frozen');
  });

  it('tells a clean stop, a forced one and one from inside apart', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    await under.change('c1', { action: 'stop' });
    await under.change('c1', { action: 'start' });
    await under.change('c1', { action: 'stop', force: true });
    await under.change('c1', { action: 'start' });
    under.runtime.powerOff('c1');
    await expect.poll(() => under.instances.get('default', 'c1').status).toBe('Stopped');

    expect(under.events.filter((action) => /stopped|shutdown/.test(action))).toEqual([
      'instance-shutdown',
      'instance-stopped',
      'instance-shutdown',
    ]);
    expect([...under.storage.mounted]).toEqual([]);
    expect(under.instances.get('default', 'c1').record.config['volatile.last_state.power']).toBe('STOPPED');
  });

  it('fails a clean stop that takes too long, and deals with a later end all the same', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    under.runtime.deaf.add('c1');

    await expect(under.change('c1', { action: 'stop', timeoutSeconds: 1 })).rejects.toThrow(
      'Failed shutting down instance, status is "Running": context deadline exceeded',
    );
    under.runtime.powerOff('c1');

    await expect.poll(() => under.instances.get('default', 'c1').status).toBe('Stopped');
    expect([...under.storage.mounted]).toEqual([]);
  });

  it('lets a forced stop end a clean one that waits', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    under.runtime.deaf.add('c1');

    const clean = under.change('c1', { action: 'stop' });
    await expect.poll(() => under.runtime.calls).toContain('shutdown c1');
    await under.change('c1', { action: 'stop', force: true });
    await clean;

    expect(under.instances.get('default', 'c1').status).toBe('Stopped');
  });

  it('restarts in one operation with one event', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    const since = under.events.length;

    await under.change('c1', { action: 'restart', force: true });

    expect(under.events.slice(since)).toEqual(['instance-restarted']);
    expect(under.runtime.calls.filter((call) => call.startsWith('start'))).toHaveLength(2);
  });

  it('follows a reboot from inside without touching the container', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    const since = under.events.length;

    under.runtime.reboot('c1');
    await expect.poll(() => under.events.slice(since)).toEqual(['instance-shutdown', 'instance-restarted']);

    expect(under.runtime.calls).toEqual(['start c1']);
    expect(under.instances.get('default', 'c1').status).toBe('Running');
  });

  it('applies settings that were changed meanwhile when the container reboots', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    const info = under.instances.get('default', 'c1');
    await under.instances.edit(
      info,
      (record) => ({ ...record, config: { ...record.config, 'environment.A': '1' } }),
      AbortSignal.timeout(1000),
    );

    under.runtime.reboot('c1');
    await expect.poll(() => under.events.at(-1)).toBe('instance-restarted');

    expect(under.runtime.specs.get('c1')?.environment).toEqual({ A: '1' });
    expect(under.runtime.calls).toEqual(['start c1', 'kill c1', 'cleanUp c1', 'start c1']);
    expect(under.instances.get('default', 'c1').status).toBe('Running');
  });

  it('removes an ephemeral instance with its end', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true, ephemeral: true });

    under.runtime.powerOff('c1');

    await expect.poll(() => under.instances.names('default')).toEqual([]);
    await expect.poll(() => under.events.at(-1)).toBe('instance-deleted');
    expect([...under.storage.instances]).toEqual([]);
  });
});

describe('changing', () => {
  it('keeps volatile keys of a running instance that a client leaves out', async () => {
    await using under = await startInstances();
    const devices = { eth0: { type: 'nic', nictype: 'p2p' } };
    await under.create('c1', { start: true, devices });
    const info = under.instances.get('default', 'c1');

    await under.done(under.instances.replace(info, { ...info.record, config: { 'user.a': '1' } }));

    const { config } = under.instances.get('default', 'c1').record;
    expect(config).toMatchObject({
      'user.a': '1',
      'volatile.eth0.host_name': info.record.config['volatile.eth0.host_name'],
      'volatile.eth0.hwaddr': info.record.config['volatile.eth0.hwaddr'],
    });
    // its nic is one of this machine, and guests outlive their engine
    await under.change('c1', { action: 'stop', force: true });
  });

  it('does not let the id map of a stopped instance be deleted', async () => {
    await using under = await startInstances();
    await under.create('c1');
    const info = under.instances.get('default', 'c1');

    await expect(under.done(under.instances.replace(info, { ...info.record, config: {} }))).rejects.toThrow(
      "Volatile idmap keys can't be deleted by the user",
    );
  });

  it('renames with volume and directories', async () => {
    await using under = await startInstances();
    await under.create('c1');
    const { config: first } = under.instances.get('default', 'c1').record;

    const move = { name: 'c2', project: '', pool: '', instanceOnly: false };
    await under.done(under.engine.instances.moves.start(under.instances.get('default', 'c1').record, move));

    expect(under.instances.names('default')).toEqual(['c2']);
    expect([...under.storage.instances]).toEqual(['c2']);
    expect(readdirSync(join(under.root, 'containers'))).toEqual(['c2']);
    const { config } = under.instances.get('default', 'c2').record;
    expect(config['volatile.apply_template']).toBe('rename');
    expect(config['volatile.cloud-init.instance-id']).toMatch(/^[0-9a-f-]{36}$/);
    expect(config['volatile.cloud-init.instance-id']).not.toBe(first['volatile.cloud-init.instance-id']);
  });

  it('protects what is to be protected from deletion', async () => {
    await using under = await startInstances();
    await under.create('c1', { config: { 'security.protection.delete': 'true' } });

    await expect(under.done(under.instances.remove(under.instances.get('default', 'c1')))).rejects.toThrow(
      'Instance is protected',
    );
  });

  it('can delete again what was deleted half', async () => {
    await using under = await startInstances();
    await under.create('c1');
    under.storage.instances.delete('c1');

    await under.done(under.instances.remove(under.instances.get('default', 'c1')));

    expect(under.instances.names('default')).toEqual([]);
  });
});

describe('starting the daemon again', () => {
  it('finds what runs, and stops what died', async () => {
    const first = await startInstances();
    await first.create('runs', { start: true });
    await first.create('frozen', { start: true });
    await first.create('died', { start: true });
    await first.change('frozen', { action: 'freeze' });
    const second = await first.restart(() => first.runtime.powerOff('died'));
    await using under = second;

    const status = (name: string) => under.instances.get('default', name).status;
    expect([status('runs'), status('frozen'), status('died')]).toEqual(['Running', 'Frozen', 'Stopped']);
    expect([...under.storage.mounted].sort()).toEqual(['frozen', 'runs']);
    under.runtime.powerOff('runs');
    await expect.poll(() => status('runs')).toBe('Stopped');
  });

  it('removes what was being created, and finishes or undoes what was being renamed', async () => {
    const first = await startInstances();
    await first.create('named');
    const note = (name: string, transition: object) => {
      mkdirSync(join(first.root, 'instances', name), { recursive: true });
      writeFileSync(join(first.root, 'instances', name, 'transition'), JSON.stringify(transition));
    };
    mkdirSync(join(first.root, 'instances', 'unbegun'));
    writeFileSync(join(first.root, 'instances', 'unbegun', '.transition.abc'), '');
    note('half', { kind: 'create', pool: 'default' });
    first.storage.instances.add('half');
    // The volume has its new name, the row has not.
    note('newname', { kind: 'rename', pool: 'default', from: 'named' });
    first.storage.instances.delete('named');
    first.storage.instances.add('newname');
    const second = await first.restart();
    await using under = second;

    expect([...under.storage.instances]).toEqual(['named']);
    expect(under.instances.names('default')).toEqual(['named']);
    expect(readdirSync(join(under.root, 'containers'))).toEqual(['named']);
  });

  it('moves the directories of earlier releases, and leaves links to the pool', async () => {
    const first = await startInstances();
    await first.create('c1');
    const [link, home] = [join(first.root, 'containers', 'c1'), join(first.root, 'instances', 'c1')];
    const inPool = join(first.root, 'storage-pools', 'default', 'containers', 'c1');
    expect(readlinkSync(link)).toBe(inPool);
    writeFileSync(join(home, 'metadata.yaml'), 'kept');
    rmSync(link);
    renameSync(home, link);
    symlinkSync(join(inPool, 'rootfs'), join(link, 'rootfs'));

    await using under = await first.restart();

    expect(under.instances.names('default')).toEqual(['c1']);
    expect(readlinkSync(link)).toBe(inPool);
    expect(readFileSync(join(home, 'metadata.yaml'), 'utf8')).toBe('kept');
    expect(readdirSync(home)).not.toContain('rootfs');
  });

  it('starts instances after a boot of the host in the order that they ask for', () => {
    const record = (name: string, config: Record<string, string>) => ({ name, config }) as unknown as InstanceRecord;
    const records = [
      record('off', { 'volatile.last_state.power': 'STOPPED' }),
      record('was-on', { 'volatile.last_state.power': 'RUNNING' }),
      record('never', { 'volatile.last_state.power': 'RUNNING', 'boot.autostart': 'false' }),
      record('first', { 'boot.autostart': 'true', 'boot.autostart.priority': '5', 'boot.autostart.delay': '2' }),
    ];

    const order = autostartOrder(records, ({ config }) => config);

    expect(order.map(({ record, delaySeconds }) => [record.name, delaySeconds])).toEqual([
      ['first', 2],
      ['was-on', 0],
    ]);
  });
});
