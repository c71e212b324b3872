// What every storage driver promises of the owners in custom volumes, whether the kernel maps them or not; on real machines only.
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { MountedRoot, StorageDriver } from '#drivers/storage/driver.ts';
import { idMapKey, type IdMapRange } from '#src/host/id-map.ts';
import { MAP, signal } from '#test/contract/storage-contract.ts';
import type { RealPool } from './storage-files-contract.ts';

const OTHER_MAP: IdMapRange = { uidBase: 900_000, gidBase: 950_000, size: 65_536 };
const V = { kind: 'custom', name: 'default_v' } as const;
const COPY = { kind: 'custom', name: 'default_copy' } as const;
const AS_IT_IS = { ...V, forReading: true } as const;

/** As a container with the owners of the tree would see it. */
async function inside({ rootfsPath, owners }: MountedRoot, name: string): Promise<string> {
  const { uid, gid, mode } = await stat(join(rootfsPath, name));
  return `${uid - (owners?.uidBase ?? 0)}:${gid - (owners?.gidBase ?? 0)} ${(mode & 0o7777).toString(8)}`;
}

const ALL = ['0:0 711', '0:0 4755', '1000:1001 644', '1000:1001 755'];

async function seen(root: MountedRoot): Promise<readonly string[]> {
  return Promise.all(['.', 'su', 'home/mine', 'home'].map((name) => inside(root, name)));
}

export function customOwnersContract(newPool: () => Promise<RealPool>): void {
  /** With what is hard to keep: setuid, a capability, a user of the container's. */
  const filled = async (driver: StorageDriver, pool: RealPool): Promise<void> => {
    await driver.createVolume({ ...V, idMap: null }, signal());
    const { rootfsPath } = await driver.mountVolume(V, null, signal());
    await mkdir(join(rootfsPath, 'home'));
    await writeFile(join(rootfsPath, 'home', 'mine'), 'of the user');
    await writeFile(join(rootfsPath, 'su'), 'program');
    await pool.host.run(['chmod', '4755', join(rootfsPath, 'su')]);
    await pool.host.run(['chown', '-R', '1000:1001', join(rootfsPath, 'home')]);
    if (pool.xattrs) {
      await writeFile(join(rootfsPath, 'ping'), 'program');
      await pool.host.run(['setcap', 'cap_net_raw+ep', join(rootfsPath, 'ping')]);
      await pool.host.run(['setfacl', '-m', 'u:1000:rw', join(rootfsPath, 'ping')]);
    }
  };

  it('gives a custom volume to one map after another, or leaves that to who uses it', async () => {
    await using pool = await newPool();
    const { driver, host } = pool;
    await driver.createPool(signal());
    await filled(driver, pool);

    for (const map of [MAP, OTHER_MAP, null, MAP]) {
      const root = await driver.mountVolume(V, map, signal());

      expect(root.owners ?? map).toEqual(map);
      expect(await seen(root)).toEqual(ALL);
      if (pool.xattrs) {
        const ping = join(root.rootfsPath, 'ping');
        const { stdout } = await host.run(['getcap', '-n', ping]);
        expect(stdout).toContain('cap_net_raw=ep');
        expect(stdout.includes(`[rootid=${root.owners?.uidBase}]`)).toBe(root.owners !== null);
        const acl = await host.run(['getfacl', '-n', '-p', ping]);
        expect(acl.stdout).toContain(`user:${(root.owners?.uidBase ?? 0) + 1000}:rw-`);
      }
    }
  });

  it('leaves the owners alone where files are only read, whoever asks', async () => {
    await using pool = await newPool();
    const { driver } = pool;
    await driver.createPool(signal());
    await filled(driver, pool);
    const { owners } = await driver.mountVolume(V, MAP, signal());
    await driver.unmountVolume(V, signal());

    for (const map of [null, OTHER_MAP]) {
      const root = await pool.restarted().mountVolume(AS_IT_IS, map, signal());

      expect(idMapKey(root.owners)).toBe(idMapKey(owners));
      expect(await seen(root)).toEqual(ALL);
    }
  });

  it('keeps the owners of snapshots and copies, and brings them back with the files', async () => {
    await using pool = await newPool();
    const { driver } = pool;
    await driver.createPool(signal());
    await filled(driver, pool);
    await driver.createSnapshot(V, 'plain', signal());
    await driver.mountVolume(V, MAP, signal());
    await driver.createSnapshot(V, 'mapped', signal());
    await driver.mountVolume(V, OTHER_MAP, signal());
    await driver.unmountVolume(V, signal());

    await driver.copyVolume?.({ from: V, snapshots: ['plain', 'mapped'], to: { ...COPY, idMap: null } }, signal());

    const found = [await driver.mountVolume({ ...COPY, forReading: true }, null, signal())];
    for (const volume of [V, COPY]) {
      for (const snapshot of ['plain', 'mapped']) {
        found.push(await driver.mountSnapshot({ volume, snapshot, idMap: null }, signal()));
      }
    }
    expect(await Promise.all(found.map(seen))).toEqual(found.map(() => ALL));
    for (const volume of [V, COPY]) {
      for (const snapshot of ['plain', 'mapped']) await driver.unmountSnapshot(volume, snapshot, signal());
    }
    await driver.restoreSnapshot(V, 'mapped', signal());
    const mapped = await driver.mountVolume(AS_IT_IS, null, signal());
    expect(idMapKey(mapped.owners)).toBe(mapped.owners === null ? 'host' : idMapKey(MAP));
    expect(await seen(mapped)).toEqual(ALL);
    expect(await seen(await driver.mountVolume(V, OTHER_MAP, signal()))).toEqual(ALL);
  });
}
