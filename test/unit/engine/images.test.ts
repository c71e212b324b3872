// Images: uploads, what they may be, unpacking once, deleting while in use, and what a crash leaves.
import { createHash } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { UploadedImage } from '#src/engine/images/new-image.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';
import { tarOf } from '../../fakes/tar.ts';

const METADATA = 'architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: tiny\n';
const UPLOAD: UploadedImage = {
  project: 'default',
  filename: 'tiny.tar',
  isPublic: false,
  autoUpdate: false,
  properties: { version: '1' },
  aliases: [],
};
const soon = () => AbortSignal.timeout(5000);

let test: TestEngine;
beforeEach(async () => {
  test = await startTestEngine({ firstPool: 'memory' });
});
afterEach(() => test[Symbol.asyncDispose]());

async function stage(...parts: readonly (readonly ['metadata' | 'rootfs', Buffer])[]) {
  return test.engine.images.files.stage(
    (async function* () {
      for (const [name, bytes] of parts) yield { name, content: Readable.from([bytes]) };
    })(),
  );
}

async function publish(metadata = METADATA, upload: Partial<UploadedImage> = {}) {
  await using staged = await stage(['metadata', tarOf({ 'metadata.yaml': metadata })]);
  return await test.engine.images.publish(staged, { ...UPLOAD, ...upload }, soon());
}

const files = () => readdir(join(test.root, 'images'));

describe('publishing', () => {
  it('keeps the files under their hash and says what the metadata says', async () => {
    const image = await publish();

    expect(await files()).toEqual([image.fingerprint]);
    expect(image.fingerprint).toBe(
      createHash('sha256')
        .update(tarOf({ 'metadata.yaml': METADATA }))
        .digest('hex'),
    );
    expect(image).toMatchObject({
      architecture: 'x86_64',
      properties: { os: 'tiny', version: '1' },
      createdAt: '2023-11-14T22:13:20.000Z',
    });
  });

  it('hashes both parts of a split image, in their order', async () => {
    const [metadata, rootfs] = [tarOf({ './metadata.yaml': METADATA }), tarOf({ 'etc/hostname': 'x' })];
    await using staged = await stage(['metadata', metadata], ['rootfs', rootfs]);

    const { fingerprint } = await test.engine.images.publish(staged, UPLOAD, soon());

    expect(fingerprint).toBe(createHash('sha256').update(metadata).update(rootfs).digest('hex'));
    expect((await files()).toSorted()).toEqual([fingerprint, `${fingerprint}.rootfs`]);
  });

  it.each([
    ['another fingerprint than promised', () => publish(METADATA, { fingerprint: '00' }), "fingerprints don't match"],
    ['an unknown architecture', () => publish('architecture: abacus\n'), 'Invalid architecture "abacus"'],
    ['metadata that is no map', () => publish('- a\n- b\n'), 'not a map'],
    [
      'a template outside of templates/',
      () => publish(`${METADATA}templates:\n  /etc/x:\n    template: ../../etc/shadow\n`),
      'Invalid template name',
    ],
    [
      'an alias that is taken',
      () => publish(`${METADATA}# 2\n`, { aliases: [{ name: 'a', description: '' }] }),
      'exists',
    ],
  ])('refuses %s and leaves nothing', async (_what, attempt, message) => {
    const { fingerprint } = await publish(`${METADATA}# 1\n`, { aliases: [{ name: 'a', description: '' }] });

    await expect(attempt()).rejects.toThrow(message);

    expect(await files()).toEqual([fingerprint]);
    expect(test.engine.context.database.images.list()).toHaveLength(1);
  });

  it('refuses what is there, and keeps that', async () => {
    const { fingerprint } = await publish();

    await expect(publish()).rejects.toThrow('Image with same fingerprint already exists');

    expect(await files()).toEqual([fingerprint]);
  });

  it('leaves nothing of an upload that breaks off', async () => {
    const broken = async function* () {
      yield { name: 'metadata' as const, content: Readable.from(cutShort()) };
    };
    async function* cutShort() {
      yield Buffer.from('begin');
      throw new Error('connection reset');
    }

    await expect(test.engine.images.files.stage(broken())).rejects.toThrow('connection reset');

    expect(await files()).toEqual([]);
  });
});

describe('unpacking', () => {
  const request = async () => ({ fingerprint: (await publish()).fingerprint, pool: 'default' });

  it('happens once for all that want it at the same time', async () => {
    const wanted = await request();
    const used: number[] = [];

    await Promise.all(
      [1, 2, 3].map((n) => test.engine.images.withUnpacked(wanted, async () => void used.push(n), soon())),
    );

    expect(test.storage.unpacked).toEqual([wanted.fingerprint]);
    expect(used.toSorted((a, b) => a - b)).toEqual([1, 2, 3]);
  });

  it('lets users run side by side, and deleting wait for the last of them', async () => {
    const wanted = await request();
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const order: string[] = [];
    const users = gates.map((gate, index) =>
      test.engine.images.withUnpacked(
        wanted,
        async () => {
          order.push(`begin ${index}`);
          await gate.promise;
          order.push(`end ${index}`);
        },
        soon(),
      ),
    );
    await delay(30);
    const image = test.engine.context.database.images.get('default', wanted.fingerprint);
    const deleted = test.engine.images.delete(image, soon()).then(() => order.push('deleted'));

    gates[1]?.resolve();
    await delay(10);
    gates[0]?.resolve();
    await Promise.all([...users, deleted]);

    expect(order).toEqual(['begin 0', 'begin 1', 'end 1', 'end 0', 'deleted']);
    expect([...test.storage.images]).toEqual([]);
    expect(await files()).toEqual([]);
  });

  it('is tried again after it failed', async () => {
    const wanted = await request();
    test.storage.faults.set('createImage', new Error('disk full'));
    await expect(test.engine.images.withUnpacked(wanted, async () => undefined, soon())).rejects.toThrow('disk full');
    test.storage.faults.clear();

    await test.engine.images.withUnpacked(wanted, async () => undefined, soon());

    expect([...test.storage.images]).toEqual([wanted.fingerprint]);
  });
});

it('finds images by a unique prefix, by alias and by properties, the newest first', async () => {
  const first = await publish(`${METADATA}# 1\n`, { aliases: [{ name: 'one', description: '' }] });
  const second = await publish(`${METADATA}# 2\n`);
  const resolve = (selector: Parameters<typeof test.engine.images.resolve>[1]) =>
    test.engine.images.resolve('default', selector).fingerprint;

  expect(resolve({ alias: 'one' })).toBe(first.fingerprint);
  expect(resolve({ fingerprint: second.fingerprint.slice(0, 12) })).toBe(second.fingerprint);
  expect(resolve({ properties: { os: 'tiny' } })).toBe(second.fingerprint);
  expect(() => resolve({ properties: { os: 'huge' } })).toThrow('Image not found');
  expect(() => resolve({ alias: 'two' })).toThrow('Image alias not found');
});

it('keeps the templates of an image for the instances made of it', async () => {
  const metadata = `${METADATA}templates:\n  /etc/hostname:\n    when: [create]\n    template: host.tpl\n`;
  const archive = tarOf({ 'metadata.yaml': metadata, 'templates/host.tpl': '{{ container.name }}' });
  await using staged = await stage(['metadata', archive]);
  const { fingerprint } = await test.engine.images.publish(staged, UPLOAD, soon());

  const directory = await test.engine.images.metadataDirectory(fingerprint, soon());

  expect(await readdir(join(directory, 'templates'))).toEqual(['host.tpl']);
  expect((await test.engine.images.metadata(fingerprint)).templates['/etc/hostname']).toMatchObject({
    when: ['create'],
  });
});

it('removes at start what belongs to no image: files, half uploads, unpacked trees', async () => {
  const { fingerprint } = await publish();
  const directory = join(test.root, 'images');
  for (const name of ['deadbeef', 'deadbeef.rootfs', 'upload.part', `${fingerprint}.part`]) {
    await writeFile(join(directory, name), '');
  }
  await mkdir(join(directory, 'deadbeef.metadata'));
  test.storage.images.add('deadbeef');

  await test.engine.images.clean(soon());

  expect(await files()).toEqual([fingerprint]);
  expect([...test.storage.images]).toEqual([]);
});

describe('profiles of an image', () => {
  it('are those of each project that has profiles of its own', async () => {
    const { database } = test.engine.context;
    const { images } = test.engine;
    const config = { 'features.images': 'false', 'features.profiles': 'true' };
    database.projects.create({ name: 'p1', description: '', config });
    const profile = { project: 'p1', name: 'web', description: '', config: {}, devices: {} };
    database.profiles.create(profile);

    const { fingerprint } = await publish(METADATA, { project: 'p1', profiles: ['web'] });
    const seen = (project: string) => database.images.get(project, fingerprint).profiles;
    expect([seen('p1'), seen('default')]).toEqual([['web'], ['default']]);

    images.update(database.images.get('default', fingerprint), { profiles: [] });
    expect([seen('p1'), seen('default')]).toEqual([['web'], []]);
    images.update(database.images.get('p1', fingerprint), { profiles: ['web', 'web'] });
    expect([seen('p1'), seen('default')]).toEqual([['web', 'web'], []]);
    expect(() => images.update(database.images.get('default', fingerprint), { profiles: ['web'] })).toThrow(
      "Profile 'web' doesn't exist",
    );

    const other = await publish(`${METADATA}# newer\n`);
    database.images.moveProfiles(database.images.get('default', fingerprint).id, other.id);
    const moved = (project: string) => database.images.get(project, other.fingerprint).profiles;
    expect([moved('p1'), moved('default')]).toEqual([['web', 'web'], []]);
  });
});
