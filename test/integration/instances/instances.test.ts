// Instances through the API, with liblxc, the overlay pool and a daemon that is killed now and then.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { describeWith } from '../support.ts';
import { TestDaemon } from './daemon-support.ts';

const within = (ms: number): AbortSignal => AbortSignal.timeout(ms);

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip'] }, 'instances', () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
  });

  it('creates and starts in one operation, with name, limits and environment applied', async () => {
    await daemon.launch('one', { config: { 'limits.memory': '64MiB', 'environment.GREETING': 'hello' } });
    await daemon.ready('one');

    const { metadata } = await daemon.call('GET', '/1.0/instances/one?recursion=1');
    expect(metadata).toMatchObject({ name: 'one', status: 'Running', status_code: 103, type: 'container' });
    expect(metadata.config['volatile.last_state.power']).toBe('RUNNING');
    expect(metadata.state.memory.usage).toBeGreaterThan(0);
    expect(metadata.state.network.lo.addresses).toContainEqual({
      family: 'inet',
      address: '127.0.0.1',
      netmask: '8',
      scope: 'local',
    });
    const { pid } = metadata.state;
    expect(readFileSync(`/proc/${pid}/root/etc/hostname`, 'utf8')).toBe('one\n');
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toContain('GREETING=hello');
    expect(readFileSync(`/proc/${pid}/uid_map`, 'utf8')).not.toMatch(/^\s+0\s+0\s/);
    expect(await daemon.consoleLog('one')).toContain('up as one');
  });

  it('refuses what cannot be done to a running instance', async () => {
    await expect(daemon.operate('PUT', '/1.0/instances/one/state', { action: 'start' })).rejects.toThrow(
      'The instance is already running',
    );
    const removal = await daemon.call('DELETE', '/1.0/instances/one');
    expect([removal.status, removal.error]).toEqual([400, 'Instance is running']);
    await expect(daemon.operate('POST', '/1.0/instances/one', { name: 'other' })).rejects.toThrow(
      'Renaming of running instance not allowed',
    );
  });

  it('notices a power off from inside at once, and cleans up', async () => {
    await daemon.launch('off');
    await daemon.ready('off');
    const { pid } = await daemon.state('off');
    const since = daemon.events.length;
    const asked = Date.now();

    process.kill(pid, 'SIGPWR');
    const event = await daemon.seen('instance-shutdown', since);

    expect(event.source).toBe('/1.0/instances/off');
    expect(event.at - asked).toBeLessThan(1000);
    expect(await daemon.status('off')).toBe('Stopped');
    expect((await daemon.mounts()).filter((mount) => mount.includes('/off/'))).toEqual([]);
    expect(await daemon.consoleLog('off')).toContain('power off');
    await daemon.operate('DELETE', '/1.0/instances/off');
  });

  it('sees a reboot from inside, keeps the console log, and applies changed settings', async () => {
    await daemon.launch('again');
    await daemon.ready('again');
    const before = await daemon.state('again');
    const since = daemon.events.length;

    process.kill(before.pid, 'SIGINT');
    await daemon.seen('instance-restarted', since);
    await daemon.ready('again', 2);
    const after = await daemon.state('again');
    await daemon.call('PATCH', '/1.0/instances/again', { config: { 'environment.CHANGED': 'yes' } });
    const second = daemon.events.length;
    process.kill(after.pid, 'SIGINT');
    await daemon.seen('instance-restarted', second);

    expect(after.pid).not.toBe(before.pid);
    const { pid } = await daemon.state('again');
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toContain('CHANGED=yes');
    await daemon.operate('PUT', '/1.0/instances/again/state', { action: 'stop', force: true });
    await daemon.operate('DELETE', '/1.0/instances/again');
  });

  it('freezes, restarts, stops cleanly, and starts again', async () => {
    const put = (body: object) => daemon.operate('PUT', '/1.0/instances/one/state', body);
    await put({ action: 'freeze' });
    const frozen = await daemon.status('one');
    await put({ action: 'unfreeze' });
    await put({ action: 'restart', timeout: 10 });
    const restarted = await daemon.status('one');
    await daemon.ready('one', 2);
    await put({ action: 'stop', timeout: 10 });
    const stopped = await daemon.status('one');
    await put({ action: 'start' });

    expect([frozen, restarted, stopped, await daemon.status('one')]).toEqual([
      'Frozen',
      'Running',
      'Stopped',
      'Running',
    ]);
  });

  it('lets a forced stop end a clean one that is stuck', async () => {
    await daemon.launch('stuck', { config: { 'raw.lxc': 'lxc.init.cmd = /bin/sleep 1000' } });
    const clean = daemon.operate('PUT', '/1.0/instances/stuck/state', { action: 'stop', timeout: 60 });
    await poll(
      async () => ((await daemon.call('GET', '/1.0/operations')).metadata.running ? true : undefined),
      10,
      within(5000),
    );
    const begun = Date.now();

    await daemon.operate('PUT', '/1.0/instances/stuck/state', { action: 'stop', force: true });
    await clean;

    expect(Date.now() - begun).toBeLessThan(5000);
    expect(await daemon.status('stuck')).toBe('Stopped');
    await daemon.operate('DELETE', '/1.0/instances/stuck');
  });

  it('says so when a clean stop takes too long, and the container runs on', async () => {
    await daemon.launch('slow', { config: { 'raw.lxc': 'lxc.init.cmd = /bin/sleep 1000' } });

    await expect(daemon.operate('PUT', '/1.0/instances/slow/state', { action: 'stop', timeout: 1 })).rejects.toThrow(
      'Failed shutting down instance, status is "Running": context deadline exceeded',
    );

    expect(await daemon.status('slow')).toBe('Running');
    const since = daemon.events.length;
    process.kill((await daemon.state('slow')).pid, 'SIGKILL');
    await daemon.seen('instance-shutdown', since);
    await daemon.operate('DELETE', '/1.0/instances/slow');
  });

  it('answers bad requests as LXD does', async () => {
    const post = (body: object) => daemon.operate('POST', '/1.0/instances', body);
    const image = { type: 'image', alias: 'bb' };
    await expect(post({ name: '1a', source: image })).rejects.toThrow(
      'Invalid instance name: Name must not start with a number',
    );
    await expect(post({ name: 'x', source: { type: 'image', alias: 'zz' } })).rejects.toThrow('Image alias not found');
    await expect(post({ name: 'x', source: { type: 'zz' } })).rejects.toThrow('Unknown source type zz');
    await expect(post({ name: 'x', config: { 'limits.nope': '1' }, source: image })).rejects.toThrow(
      'Failed creating instance record: Unknown configuration key: limits.nope',
    );
    await expect(post({ name: 'x', profiles: [], source: { type: 'none' } })).rejects.toThrow(
      'Failed creating instance record: Failed initialising instance: Failed getting root disk: No root device could be found',
    );
    await expect(post({ name: 'one', source: image })).rejects.toThrow(
      'Failed creating instance record: Add instance info to the database: This "instances" entry already exists',
    );
    const patch = await daemon.call('PATCH', '/1.0/instances/one', { config: { 'limits.nope': '1' } });
    expect([patch.status, patch.error]).toEqual([500, 'Invalid config: Unknown configuration key: limits.nope']);
    expect(await daemon.call('GET', '/1.0/instances/none')).toMatchObject({ status: 404, error: 'Instance not found' });
    expect(await daemon.call('PUT', '/1.0/instances/one/state', { action: 'fly' })).toMatchObject({
      status: 400,
      error: "Unknown action: 'fly'",
    });
    expect(readdirSync(join(daemon.root, 'instances'))).not.toContain('x');
  });

  it('stores changes with an ETag and refuses stale ones', async () => {
    const { headers, metadata } = await daemon.call('GET', '/1.0/instances/one');
    const etag = String(headers['etag']);
    const patched = await daemon.call(
      'PATCH',
      '/1.0/instances/one',
      { config: { 'user.a': '1' } },
      { 'if-match': etag },
    );
    const stale = await daemon.call('PATCH', '/1.0/instances/one', { config: { 'user.a': '2' } }, { 'if-match': etag });
    const { config, devices, profiles, ephemeral, architecture } = metadata;
    const body = { config: { ...config, 'user.b': '1' }, devices, profiles, ephemeral, architecture, description: 'd' };
    await daemon.operate('PUT', '/1.0/instances/one', body);

    expect([patched.status, stale.status]).toEqual([200, 412]);
    const after = (await daemon.call('GET', '/1.0/instances/one')).metadata;
    expect(after.config['user.a']).toBeUndefined();
    expect(after).toMatchObject({ description: 'd', config: { 'user.b': '1' }, status: 'Running' });
  });

  it('copies, renames and deletes a stopped instance', async () => {
    await daemon.operate('POST', '/1.0/instances', { name: 'source', source: { type: 'image', alias: 'bb' } });
    await daemon.operate('POST', '/1.0/instances', { name: 'copied', source: { type: 'copy', source: 'source' } });
    await daemon.operate('POST', '/1.0/instances/copied', { name: 'renamed' });
    await daemon.operate('PUT', '/1.0/instances/renamed/state', { action: 'start' });
    await daemon.ready('renamed');

    expect(await daemon.consoleLog('renamed')).toContain('up as renamed');
    const { pid } = await daemon.state('renamed');
    expect(readFileSync(`/proc/${pid}/root/etc/hostname`, 'utf8')).toBe('renamed\n');
    await daemon.operate('PUT', '/1.0/instances/renamed/state', { action: 'stop', force: true });
    for (const name of ['source', 'renamed']) await daemon.operate('DELETE', `/1.0/instances/${name}`);
    for (const name of ['source', 'copied', 'renamed']) {
      expect(existsSync(join(daemon.root, 'instances', name))).toBe(false);
      expect(existsSync(join(daemon.root, 'logs', name))).toBe(false);
    }
  });

  it('leaves nothing of a start that failed', async () => {
    const devices = {
      eth0: { type: 'nic', nictype: 'p2p' },
      eth1: { type: 'nic', nictype: 'physical', parent: 'absent0' },
    };
    await daemon.operate('POST', '/1.0/instances', { name: 'fails', devices, source: { type: 'image', alias: 'bb' } });

    await expect(daemon.operate('PUT', '/1.0/instances/fails/state', { action: 'start' })).rejects.toThrow(
      `Failed to start device "eth1": Parent device 'absent0' doesn't exist`,
    );

    const { metadata } = await daemon.call('GET', '/1.0/instances/fails');
    expect(metadata.status).toBe('Stopped');
    expect(metadata.config['volatile.eth0.host_name']).toBeUndefined();
    expect((await daemon.mounts()).filter((mount) => mount.includes('/fails/'))).toEqual([]);
    await daemon.operate('DELETE', '/1.0/instances/fails');
  });

  it('finds its containers again after it was killed, and those that died meanwhile', async () => {
    await daemon.launch('dies');
    await daemon.ready('dies');
    const { pid } = await daemon.state('one');
    const dying = await daemon.state('dies');

    await daemon.kill('SIGKILL');
    process.kill(dying.pid, 'SIGPWR');
    await poll(() => (existsSync(`/proc/${dying.pid}`) ? undefined : true), 20, within(5000));
    await daemon.boot();

    expect((await daemon.state('one')).pid).toBe(pid);
    expect(await daemon.status('one')).toBe('Running');
    expect(await daemon.status('dies')).toBe('Stopped');
    expect((await daemon.mounts()).filter((mount) => mount.includes('/dies/'))).toEqual([]);
    const since = daemon.events.length;
    process.kill(pid, 'SIGPWR');
    await daemon.seen('instance-shutdown', since);
    await daemon.operate('PUT', '/1.0/instances/one/state', { action: 'start' });
    await daemon.operate('DELETE', '/1.0/instances/dies');
  });

  it('leaves nothing behind wherever it is killed in a launch', async () => {
    for (const [index, delayMs] of [5, 20, 40, 70, 110].entries()) {
      const name = `crash${index}`;
      const body = { name, source: { type: 'image', alias: 'bb' }, start: true };
      await daemon.call('POST', '/1.0/instances', body);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      await daemon.kill('SIGKILL');
      await daemon.boot();

      const { status, metadata } = await daemon.call('GET', `/1.0/instances/${name}?recursion=1`);
      if (status === 200) {
        const running = metadata.status === 'Running';
        expect(metadata.state.pid > 0).toBe(running);
        if (running) await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
        await daemon.operate('DELETE', `/1.0/instances/${name}`);
      }
      expect(existsSync(join(daemon.root, 'instances', name))).toBe(false);
      expect(volumesOf(daemon.root)).not.toContain(name);
      expect((await daemon.mounts()).filter((mount) => mount.includes(`/${name}/`))).toEqual([]);
    }
  }, 120_000);

  it('removes a half-made instance at its start', async () => {
    const home = join(daemon.root, 'instances', 'half');
    await daemon.kill('SIGKILL');
    mkdirSync(home);
    writeFileSync(join(home, 'transition'), JSON.stringify({ kind: 'create', pool: 'default' }));
    await daemon.boot();

    expect(existsSync(home)).toBe(false);
    expect(await daemon.status('one')).toBe('Running');
  });

  it('shows an ephemeral instance out when it stops', async () => {
    await daemon.launch('brief', { ephemeral: true });
    await daemon.operate('PUT', '/1.0/instances/brief/state', { action: 'stop', force: true });

    expect((await daemon.call('GET', '/1.0/instances/brief')).status).toBe(404);
  });

  it('starts and stops what a bulk change applies to', async () => {
    await daemon.operate('POST', '/1.0/instances', { name: 'idle', source: { type: 'image', alias: 'bb' } });
    await daemon.operate('PUT', '/1.0/instances', { state: { action: 'start' } });
    const started = await daemon.status('idle');
    await daemon.operate('PUT', '/1.0/instances', { state: { action: 'stop', force: true } });

    expect(started).toBe('Running');
    expect([await daemon.status('idle'), await daemon.status('one')]).toEqual(['Stopped', 'Stopped']);
    await daemon.operate('DELETE', '/1.0/instances/idle');
  });

  it('has left no control groups and interfaces', () => {
    const groups = execFileSync('find', ['/sys/fs/cgroup', '-maxdepth', '2', '-name', 'lxc.*']).toString();

    for (const name of ['one', 'off', 'again', 'stuck', 'slow', 'dies', 'crash0', 'crash4', 'brief', 'idle']) {
      expect(groups).not.toMatch(new RegExp(`lxc\\.(payload|monitor)\\.${name}$`, 'm'));
    }
  });
});

function volumesOf(root: string): string[] {
  return readdirSync(join(root, 'storage-pools/default/containers'));
}
