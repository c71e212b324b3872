// An engine that lost its database takes over its pools: instances by the records in their volumes, by `lxd recover` and by the API.
import { existsSync } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { ended, StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const ZPOOL = `lighter-r${process.pid}`;

interface Tried {
  readonly driver: string;
  readonly commands: readonly string[];
  /** Options of its making. */
  readonly options: readonly string[];
  /** What the operator knows of it, below the engine's directory. */
  readonly source: (root: string) => string;
  readonly more: Readonly<Record<string, string>>;
}

const ALL: readonly Tried[] = [
  { driver: 'dir', commands: [], options: [], source: (root) => `${root}/storage-pools/p`, more: {} },
  { driver: 'overlay', commands: [], options: [], source: (root) => `${root}/storage-pools/p`, more: {} },
  {
    driver: 'btrfs',
    commands: ['mkfs.btrfs'],
    options: ['size=512MiB'],
    source: (root) => `${root}/disks/p.img`,
    more: {},
  },
  {
    driver: 'zfs',
    commands: ['zfs', 'zpool'],
    options: ['size=512MiB', `zfs.pool_name=${ZPOOL}`],
    source: (root) => `${root}/disks/p.img`,
    more: { 'zfs.pool_name': ZPOOL },
  },
];

for (const { driver, commands, options, source, more } of ALL) {
  const needed = ['lxc', 'lxd', 'lxc-start', 'busybox', ...commands];
  describeWith({ root: true, commands: needed }, `an engine that lost its database, on ${driver}`, () => {
    let daemon: TestDaemon;
    let client: StockClient;
    const lxc = (...args: readonly string[]): Promise<string> => client.run(...args);

    beforeAll(async () => {
      daemon = await TestDaemon.start('none');
      client = await StockClient.for(daemon);
      await lxc('storage', 'create', 'p', driver, ...options);
      await lxc('profile', 'device', 'add', 'default', 'root', 'disk', 'path=/', 'pool=p');
      await daemon.addImage();
    }, 60_000);
    afterAll(async () => {
      await run('umount', [join(daemon.root, 'storage-pools/p')]).catch(() => undefined);
      await daemon[Symbol.asyncDispose]();
      if (driver === 'zfs') await run('zpool', ['destroy', '-f', ZPOOL]);
    }, 60_000);

    const record = async (name: string): Promise<string> => {
      // Of what is mounted or lies there as it is.
      return readFile(join(daemon.root, 'storage-pools/p/containers', name, 'backup.yaml'), 'utf8');
    };
    const privileged = driver === 'zfs' ? ['-c', 'security.privileged=true'] : [];

    it('has a record of each instance in its volume, written when it changes and not when it only runs', async () => {
      await lxc('launch', 'bb', 'r1', '-c', 'user.a=b', ...privileged);
      await daemon.ready('r1');
      await lxc('snapshot', 'r1', 's0');
      await lxc('config', 'set', 'r1', 'user.note=first');
      const written = async (text: string) => {
        const found = await record('r1').catch(() => '');
        return found.includes(text) ? found : undefined;
      };

      expect(await poll(() => written('"first"'), 50, AbortSignal.timeout(20_000))).toContain('"s0"');
      const path = join(daemon.root, 'storage-pools/p/containers/r1');
      const before = await stat(join(path, 'backup.yaml'));
      expect(before.mode & 0o777).toBe(0o400);
      await lxc('pause', 'r1');
      await lxc('start', 'r1');
      await new Promise((resolve) => setTimeout(resolve, 1500));
      expect((await stat(join(path, 'backup.yaml'))).ino).toBe(before.ino);
      await lxc('exec', 'r1', '--', 'sh', '-c', 'echo kept > /root/f; sync');
    }, 60_000);

    it('writes after a restart what a killed daemon did not', async () => {
      await lxc('config', 'set', 'r1', 'user.note=second');
      await daemon.kill();
      await daemon.boot('none');

      await poll(
        async () => ((await record('r1')).includes('"second"') ? true : undefined),
        50,
        AbortSignal.timeout(20_000),
      );
      await lxc('stop', '-f', 'r1');
      await lxc('storage', 'volume', 'create', 'p', 'data');
      await lxc('storage', 'volume', 'snapshot', 'p', 'data', 'v0');
    }, 60_000);

    it('takes up an instance that runs on', async () => {
      await lxc('launch', 'bb', 'r2', ...privileged);
      await daemon.ready('r2');
      const record = join(daemon.root, 'storage-pools/p/containers/r2/backup.yaml');
      await poll(async () => (existsSync(record) ? true : undefined), 50, AbortSignal.timeout(20_000));
      const { pid } = (await daemon.call('GET', '/1.0/instances/r2/state')).metadata;
      await daemon.kill('SIGTERM');
      using database = new DatabaseSync(join(daemon.root, 'database/lighter.db'));
      database.exec("PRAGMA foreign_keys = ON; DELETE FROM instances WHERE name = 'r2'");
      await daemon.boot('none');

      const { error } = await daemon.call('POST', '/internal/recover/import', { pools: [{ name: 'p' }] });

      expect(error).toBe('');
      const { metadata: state } = await daemon.call('GET', '/1.0/instances/r2/state');
      expect(state).toMatchObject({ status: 'Running', pid });
      expect(await lxc('exec', 'r2', '--', 'hostname')).toBe('r2\n');
      await lxc('delete', '-f', 'r2');
      expect(existsSync(`/proc/${pid}`)).toBe(false);
    }, 60_000);

    it('gets all of it back', async () => {
      // its volume is mounted on every driver as long as it runs
      await lxc('start', 'r1');
      await lxc('storage', 'set', 'p', 'user.owner', 'me');
      await poll(
        async () => ((await record('r1')).includes('user.owner') ? true : undefined),
        50,
        AbortSignal.timeout(20_000),
      );
      await lxc('stop', '-f', 'r1');
      const { config } = (await daemon.call('GET', '/1.0/storage-pools/p')).metadata;
      await daemon.kill('SIGTERM');
      for (const gone of ['database', 'containers', 'instances', 'snapshots', 'images']) {
        await rm(join(daemon.root, gone), { recursive: true });
      }
      if (driver === 'btrfs') await run('umount', [join(daemon.root, 'storage-pools/p')]);
      await daemon.boot('none');
      expect((await daemon.call('GET', '/1.0/instances')).metadata).toEqual([]);
      const pool = { name: 'p', driver, config: { source: source(daemon.root), ...more } };

      const look = await daemon.call('POST', '/internal/recover/validate', { pools: [pool] });

      expect(look.error).toBe('');
      expect(look.metadata.DependencyErrors).toEqual([]);
      expect(look.metadata.UnknownVolumes).toEqual([
        { name: 'r1', type: 'container', snapshotCount: 1, project: 'default', pool: 'p' },
        { name: 'data', type: 'custom', snapshotCount: 1, project: 'default', pool: 'p' },
      ]);
      const keys = Object.entries(more).map(([key, value]) => `${key}=${value}\n`);
      const answers = `yes\np\n${driver}\n${source(daemon.root)}\n${keys.join('')}\nno\nyes\nyes\n`;
      const { code, stderr, stdout } = await ended(client.command('lxd', 'recover'), answers);
      expect(`${stderr}${code}`, stdout.toString()).toBe('0');

      expect(await lxc('config', 'get', 'r1', 'user.note')).toBe('second\n');
      expect(config['user.owner']).toBe('me');
      expect((await daemon.call('GET', '/1.0/storage-pools/p')).metadata.config).toEqual(config);
      expect(await lxc('config', 'show', 'r1/s0')).toContain('user.a: b');
      expect(await lxc('storage', 'volume', 'list', 'p', '-f', 'csv')).toContain('custom (snapshot),data/v0');
      await lxc('start', 'r1');
      await daemon.ready('r1');
      expect(await lxc('exec', 'r1', '--', 'cat', '/root/f')).toBe('kept\n');
      await lxc('stop', '-f', 'r1');
      await lxc('restore', 'r1', 's0');
      await lxc('start', 'r1');
      await expect(lxc('exec', 'r1', '--', 'cat', '/root/f')).rejects.toThrow('No such file');
      await lxc('delete', '-f', 'r1');
      const again = await daemon.call('POST', '/internal/recover/validate', { pools: [{ name: 'p' }] });
      expect(again.metadata.UnknownVolumes).toEqual([]);
      await lxc('storage', 'volume', 'delete', 'p', 'data');
    }, 120_000);
  });
}
