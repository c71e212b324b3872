// The server's images and backups in volumes of its own pools, with the stock client.
import { lstat, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StockClient } from '../engine/stock-client.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'btrfs'] }, 'volumes of the server', () => {
  describe.each(['overlay', 'btrfs'])('on %s', (driver) => {
    let daemon: TestDaemon;
    let client: StockClient;
    const lxc = (...args: string[]): Promise<string> => client.run(...args);
    const isLink = async (name: string): Promise<boolean> => (await lstat(join(daemon.root, name))).isSymbolicLink();
    const files = async (name: string): Promise<string[]> => {
      return (await readdir(join(daemon.root, name), { recursive: true })).toSorted();
    };

    beforeAll(async () => {
      daemon = await TestDaemon.start();
      client = await StockClient.for(daemon);
      await lxc('storage', 'create', 'own', driver, ...(driver === 'btrfs' ? ['size=400MiB'] : []));
      await daemon.addImage();
      await lxc('init', 'bb', 'c1');
      await daemon.operate('POST', '/1.0/instances/c1/backups', { name: 'kept' });
      for (const name of ['images', 'backups', 'other']) await lxc('storage', 'volume', 'create', 'own', name);
    }, 60_000);
    afterAll(async () => {
      await lxc('delete', 'c1');
      await daemon[Symbol.asyncDispose]();
    });

    it('have the files, after a restart as well, and give them back', async () => {
      const before = { images: await files('images'), backups: await files('backups') };
      await lxc('config', 'set', 'storage.images_volume', 'own/images');
      await lxc('config', 'set', 'storage.backups_volume', 'own/backups');
      expect([await isLink('images'), await isLink('backups')]).toEqual([true, true]);
      expect({ images: await files('images'), backups: await files('backups') }).toEqual(before);

      await daemon.kill();
      await daemon.boot();
      await lxc('init', 'bb', 'c2', '-s', 'own');
      await lxc('publish', 'c2', '--alias', 'new');
      await lxc('delete', 'c2');
      await lxc('image', 'delete', 'new');
      expect(await lxc('query', '/1.0/instances/c1/backups')).toContain('/backups/kept');
      await lxc('config', 'set', 'storage.images_volume', 'own/other');
      expect(await files('images')).toEqual(before.images);

      await lxc('config', 'unset', 'storage.images_volume');
      await lxc('config', 'unset', 'storage.backups_volume');
      expect([await isLink('images'), await isLink('backups')]).toEqual([false, false]);
      expect({ images: await files('images'), backups: await files('backups') }).toEqual(before);
      for (const name of ['images', 'backups', 'other']) await lxc('storage', 'volume', 'delete', 'own', name);
    }, 60_000);

    it('are checked before, and cannot be taken away', async () => {
      await lxc('storage', 'volume', 'create', 'own', 'v1');
      const set = (value: string) => lxc('config', 'set', 'storage.images_volume', value);
      await expect(set('v1')).rejects.toThrow('Invalid syntax for volume');
      await expect(set('nope/v1')).rejects.toThrow('Unable to load storage pool "nope"');
      await expect(set('own/nope')).rejects.toThrow('Failed loading storage volume "own/nope"');
      await lxc('storage', 'volume', 'snapshot', 'own', 'v1', 's0');
      await expect(set('own/v1')).rejects.toThrow('cannot have snapshots');
      await lxc('storage', 'volume', 'delete', 'own', 'v1/s0');
      await writeFile(join(daemon.root, 'images/upload.part'), 'half');
      await expect(set('own/v1')).rejects.toThrow('is being written');
      await writeFile(join(daemon.root, 'storage-pools/own/custom/default_v1/stray'), '');
      await expect(set('own/v1')).rejects.toThrow("isn't empty");
      expect(await isLink('images')).toBe(false);
      await lxc('storage', 'volume', 'delete', 'own', 'v1');

      await lxc('storage', 'volume', 'create', 'own', 'v2');
      await lxc('config', 'set', 'storage.backups_volume', 'own/v2');
      expect(await lxc('storage', 'volume', 'show', 'own', 'v2')).toContain('- /1.0');
      await expect(lxc('storage', 'volume', 'delete', 'own', 'v2')).rejects.toThrow('still in use');
      await expect(lxc('storage', 'volume', 'rename', 'own', 'v2', 'v3')).rejects.toThrow('still in use');
      await expect(lxc('storage', 'volume', 'snapshot', 'own', 'v2')).rejects.toThrow('cannot have snapshots');
      await lxc('config', 'unset', 'storage.backups_volume');
      await lxc('storage', 'volume', 'delete', 'own', 'v2');
    }, 60_000);
  });
});
