// Images of servers, on a real Nova and Glance: the guest runs on, what it had boots again, backups replace each other; shelved
// servers come back.
import { setTimeout as sleep } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import { OpenStackError } from 'keystone-client-ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { addressOf, consoleLog, waitForPing, waitForStatus } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, lab, paths } from './lab/suite.ts';

interface Image {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly size: number | null;
  readonly disk_format: string | null;
  readonly base_image_ref?: string;
}

const nameOf = (server: { readonly 'OS-EXT-SRV-ATTR:instance_name': string }) =>
  server['OS-EXT-SRV-ATTR:instance_name'];

async function engineImages(): Promise<readonly string[]> {
  return (await engine.images.list()).map(({ fingerprint }) => fingerprint).toSorted();
}

async function image(id: string): Promise<Image | undefined> {
  try {
    return await cloud.get<Image>(cloud.image, `/v2/images/${id}`);
  } catch (error) {
    if (error instanceof OpenStackError && error.status === 404) return undefined;
    throw error;
  }
}

async function activeImage(id: string): Promise<Image> {
  return await poll(
    async () => {
      const found = await image(id);
      if (!found) throw new Error(`image ${id} is gone`);
      return found.status === 'active' ? found : undefined;
    },
    200,
    AbortSignal.timeout(120_000),
  );
}

async function backup(id: string, name: string): Promise<string> {
  const action = { createBackup: { name, backup_type: 'daily', rotation: 2 } };
  const { image_id: made } = (await cloud.action(id, action)) as { image_id: string };
  await activeImage(made);
  await waitForStatus(cloud, id, 'ACTIVE');
  return made;
}

let before: Residue;
let imagesBefore: readonly string[];

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  imagesBefore = await engineImages();
});

describe('an image of a running server', () => {
  let id: string;
  let name: string;
  let imageId: string;
  let initPid: number;
  const made: string[] = [];

  it('comes about while the guest runs on', async () => {
    const server = await activeServer({ name: 'original' });
    id = server.id;
    name = nameOf(server);
    await engine.files.put(name, '/root/mark', { kind: 'file', content: Buffer.from('kept') });
    ({ pid: initPid } = await engine.instances.state(name));

    const answer = await cloud.action(id, { createImage: { name: 'of-original', metadata: { purpose: 'test' } } });
    imageId = (answer as { image_id: string }).image_id;
    made.push(imageId);
    const found = await activeImage(imageId);
    await waitForStatus(cloud, id, 'ACTIVE');

    expect(found).toMatchObject({ disk_format: 'raw', container_format: 'bare', purpose: 'test', instance_uuid: id });
    expect(found).toMatchObject({ base_image_ref: (await lab()).image, image_state: 'available' });
    expect(found.size).toBeGreaterThan(0);
    expect((await engine.instances.state(name)).pid).toBe(initPid);
  });

  it('leaves nothing of itself in the engine', async () => {
    // the API shows the server without a task before the last of it is put away
    await poll(
      async () => ((await engine.instances.snapshotNames(name)).length === 0 ? true : undefined),
      200,
      AbortSignal.timeout(20_000),
    );
    await expect.poll(engineImages, { timeout: 20_000 }).toEqual(imagesBefore);
  });

  it('boots, with what the guest had, an address and a name of its own', async () => {
    const server = await activeServer({ name: 'second', image: imageId });
    const address = addressOf(server) ?? '';

    await waitForPing(address, (await lab()).network);

    const file = await engine.files.get(nameOf(server), '/root/mark');
    expect(await text(file.content)).toBe('kept');
    expect(await consoleLog(cloud, server.id, 1000)).toContain(`up as ${nameOf(server)}`);
    await deleteServer(server.id);
  });

  it('is one of as many as the rotation of backups keeps', async () => {
    const backups: string[] = [];
    for (const name of ['one', 'two', 'three']) {
      backups.push(await backup(id, name));
      // Glance knows the age of an image to the second
      await sleep(1000);
    }
    made.push(...backups);

    const states = await Promise.all(backups.map(async (one) => (await image(one))?.status));
    expect(states).toEqual([undefined, 'active', 'active']);
    expect((await image(imageId))?.status).toBe('active');
    expect((await engine.instances.state(name)).pid).toBe(initPid);
  });

  it('does not come about of a server that is deleted meanwhile, which goes all the same', async () => {
    const { image_id: late } = (await cloud.action(id, { createImage: { name: 'late' } })) as { image_id: string };
    made.push(late);

    await deleteServer(id);

    await expect.poll(async () => (await image(late))?.status, { timeout: 30_000 }).not.toBe('saving');
    await expect.poll(async () => (await image(late))?.status, { timeout: 30_000 }).not.toBe('queued');
  });

  afterAll(async () => {
    for (const one of made) if (await image(one)) await cloud.delete(cloud.image, `/v2/images/${one}`);
  });
});

describe('a shelved server', () => {
  it('leaves the host, and comes back with what it had and its address', async () => {
    const server = await activeServer({ name: 'shelf' });
    const { id } = server;
    const address = addressOf(server) ?? '';
    await engine.files.put(nameOf(server), '/root/mark', { kind: 'file', content: Buffer.from('kept') });

    await cloud.action(id, { shelve: null });
    const shelved = await waitForStatus(cloud, id, 'SHELVED_OFFLOADED');
    expect(shelved?.['OS-EXT-SRV-ATTR:host']).toBeNull();
    expect((await engine.instances.list()).map(({ name }) => name)).not.toContain(nameOf(server));

    await cloud.action(id, { unshelve: null });
    const back = await waitForStatus(cloud, id, 'ACTIVE');
    expect(back && addressOf(back)).toBe(address);
    await waitForPing(address, (await lab()).network);
    const file = await engine.files.get(nameOf(server), '/root/mark');
    expect(await text(file.content)).toBe('kept');

    await deleteServer(id);
    const { images } = await cloud.get<{ images: readonly Image[] }>(cloud.image, '/v2/images?name=shelf-shelved');
    expect(images).toEqual([]);
  });
});

afterAll(async () => {
  await expectNothingLeft(before, 30_000);
  engine[Symbol.dispose]();
});
