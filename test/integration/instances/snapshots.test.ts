// Snapshots, copies, moves and rebuilds on real containers, through the API.
import { access, mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { TestDaemon } from './daemon-support.ts';

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

describeWith({ root: true, commands: ['lxc-start', 'rsync'] }, 'snapshots of real instances', () => {
  describe.each(['overlay', 'dir'])('on a pool of driver %s', (driver) => {
    let daemon: TestDaemon;

    beforeAll(async () => {
      daemon = await TestDaemon.start(driver);
      await daemon.addImage();
      await daemon.call('POST', '/1.0/storage-pools', { name: 'other', driver: 'dir' });
    }, 60_000);
    afterAll(async () => daemon[Symbol.asyncDispose](), 60_000);

    /** Through the mount of a running instance: what is in its root. */
    const fileIn = async (name: string, path: string): Promise<string> => {
      const { pid } = await daemon.state(name);
      return join(`/proc/${pid}/root`, path);
    };
    const inside = (name: string, script: string) => {
      return daemon.operate('POST', `/1.0/instances/${name}/exec`, { command: ['sh', '-c', script] });
    };
    const put = (name: string, path: string, text: string) => inside(name, `printf %s '${text}' > ${path}; sync`);
    const get = async (name: string, path: string) => readFile(await fileIn(name, path), 'utf8').catch(() => undefined);
    const start = (name: string) => daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'start' });
    const stop = (name: string) => {
      return daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
    };
    const snapshot = (name: string, as = '') => {
      return daemon.operate('POST', `/1.0/instances/${name}/snapshots`, { name: as });
    };
    const copy = (source: string, name: string, more: object = {}, body: object = {}) => {
      return daemon.operate('POST', '/1.0/instances', { name, source: { type: 'copy', source, ...more }, ...body });
    };
    const snapshotNames = async (name: string): Promise<string[]> => {
      const { metadata } = await daemon.call('GET', `/1.0/instances/${name}/snapshots?recursion=1`);
      return (metadata as { name: string }[]).map((one) => one.name);
    };

    it('brings a running instance back', async () => {
      await daemon.launch('c1');
      await put('c1', '/root/state', 'before');
      await snapshot('c1');
      await put('c1', '/root/state', 'after');
      await put('c1', '/root/later', '');
      await snapshot('c1', 'after');

      await daemon.operate('PUT', '/1.0/instances/c1', { restore: 'after' });
      expect(await get('c1', '/root/state')).toBe('after');
      await daemon.operate('PUT', '/1.0/instances/c1', { restore: 'snap0' });

      expect(await daemon.status('c1')).toBe('Running');
      expect(await get('c1', '/root/state')).toBe('before');
      expect(await get('c1', '/root/later')).toBeUndefined();
      expect(await snapshotNames('c1')).toEqual(['snap0', 'after']);
    });

    it('copies what runs, with and without snapshots, and snapshots', async () => {
      await copy('c1', 'c2');
      await copy('c1/after', 'c3', {}, { start: true });

      await start('c2');
      expect(await get('c2', '/root/state')).toBe('before');
      expect(await get('c3', '/root/state')).toBe('after');
      expect(await get('c3', '/etc/hostname')).toBe('c3\n');
      expect(await snapshotNames('c2')).toEqual(['snap0', 'after']);
      expect(await snapshotNames('c3')).toEqual([]);
      await stop('c3');
      await daemon.operate('DELETE', '/1.0/instances/c3');
    });

    it('copies to another pool, and keeps the copy up to date', async () => {
      const devices = { root: { type: 'disk', path: '/', pool: 'other' } };
      await copy('c1', 'far', {}, { devices });
      await put('c1', '/root/state', 'newer');
      await daemon.operate('DELETE', '/1.0/instances/c1/snapshots/after');
      await snapshot('c1', 'third');

      await copy('c1', 'far', { refresh: true });

      expect(await snapshotNames('far')).toEqual(['snap0', 'third']);
      await start('far');
      expect(await get('far', '/root/state')).toBe('newer');
      await daemon.operate('PUT', '/1.0/instances/far', { restore: 'snap0' });
      expect(await get('far', '/root/state')).toBe('before');
      await expect(copy('c1', 'far', { refresh: true })).rejects.toThrow('Cannot refresh a running instance');
      await stop('far');
    });

    it('moves between pools with the snapshots, and under another name', async () => {
      await expect(daemon.operate('POST', '/1.0/instances/c1', { migration: true, pool: 'other' })).rejects.toThrow(
        'Instance must be stopped to move between pools',
      );

      await daemon.operate('POST', '/1.0/instances/far', { name: 'near', migration: true, pool: 'default' });

      await start('near');
      expect(await get('near', '/root/state')).toBe('before');
      await daemon.operate('PUT', '/1.0/instances/near', { restore: 'third' });
      expect(await get('near', '/root/state')).toBe('newer');
      expect((await daemon.call('GET', '/1.0/storage-pools/other')).metadata.used_by).toEqual([]);
      await stop('near');
    });

    it('gives an instance a new root', async () => {
      await stop('c2');
      await expect(
        daemon.operate('POST', '/1.0/instances/c2/rebuild', { source: { type: 'image', alias: 'bb' } }),
      ).rejects.toThrow('Cannot rebuild an instance with snapshots');
      for (const name of await snapshotNames('c2')) {
        await daemon.operate('DELETE', `/1.0/instances/c2/snapshots/${name}`);
      }

      await daemon.operate('POST', '/1.0/instances/c2/rebuild', { source: { type: 'image', alias: 'bb' } });

      await start('c2');
      expect(await get('c2', '/root/state')).toBeUndefined();
      expect(await get('c2', '/etc/hostname')).toBe('c2\n');
      await stop('c2');
    });

    it('leaves nothing of a copy in which it was killed', async () => {
      await inside('c1', 'head -c 30000000 /dev/zero > /root/big');
      const devices = { root: { type: 'disk', path: '/', pool: 'other' } };
      const source = { type: 'copy', source: 'c1' };
      await daemon.call('POST', '/1.0/instances', { name: 'half', source, devices });

      await daemon.kill();
      await daemon.boot(driver);

      const there = (await daemon.call('GET', '/1.0/instances/half')).status === 200;
      const volumes = await readdir(join(daemon.root, 'storage-pools/other/containers'));
      expect(volumes).toEqual(there ? ['half'] : []);
      expect(await exists(join(daemon.root, 'instances/half'))).toBe(there);
      // No snapshot that was made for the copy either.
      expect(await snapshotNames('c1')).toEqual(['snap0', 'third']);
      expect(await exists(join(daemon.root, 'instances/c1/transition'))).toBe(false);
      expect(await daemon.status('c1')).toBe('Running');
    });
  });

  it('lists fifteen instances with ten thousand snapshots quickly', async () => {
    await using daemon = await TestDaemon.start('dir');
    await daemon.kill('SIGTERM');
    const { DatabaseSync } = await import('node:sqlite');
    const database = new DatabaseSync(join(daemon.root, 'database/lighter.db'));
    const config = JSON.stringify({ 'image.os': 'busybox', 'volatile.base_image': 'f'.repeat(64) });
    const insert =
      database.prepare(`INSERT INTO instances (project, name, uuid, type, architecture, ephemeral, stateful,
      description, config, devices, pool, created_at, last_used_at) VALUES ('default', ?, ?, 'container', 'x86_64', 0, 0,
      '', ?, '{"root":{"type":"disk","path":"/","pool":"default"}}', 'default', '2026-01-01T00:00:00Z', '1970-01-01T00:00:00Z')`);
    const add = database.prepare(`INSERT INTO instance_snapshots (instance_id, name, architecture, ephemeral, stateful,
      description, config, devices, profiles, created_at, last_used_at, expires_at) VALUES (?, ?, 'x86_64', 0, 0, '', ?,
      '{}', '["default"]', '2026-01-01T00:00:00Z', '1970-01-01T00:00:00Z', '0001-01-01T00:00:00Z')`);
    database.exec('BEGIN');
    for (let instance = 0; instance < 15; instance++) {
      const id = insert.run(`c${instance}`, `uuid-${instance}`, config).lastInsertRowid;
      for (let count = 0; count < 667; count++) add.run(id, `snap${count}`, config);
      await mkdir(join(daemon.root, `instances/c${instance}`), { recursive: true });
    }
    database.exec('COMMIT');
    database.close();
    await daemon.boot('dir');

    const begun = Date.now();
    const { metadata } = await daemon.call('GET', '/1.0/instances?recursion=2');
    const elapsedMs = Date.now() - begun;

    expect(metadata).toHaveLength(15);
    expect(metadata[0].snapshots).toHaveLength(667);
    expect(elapsedMs).toBeLessThan(2000);
    await daemon.kill('SIGTERM');
    const again = new DatabaseSync(join(daemon.root, 'database/lighter.db'));
    again.exec('DELETE FROM instance_snapshots; DELETE FROM instances');
    again.close();
    await daemon.boot('dir');
  }, 60_000);
});
