// Restores and rebuilds on a pool that keeps the records of instances in their volumes: the new content has its record at once.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { StorageContext, StorageDriver } from '#drivers/storage/driver.ts';
import type { NewInstanceRequest } from '#src/engine/instances/requests.ts';
import { recordInstance } from '#src/engine/recovery/instance-records.ts';
import { FakeRuntime } from '#test/fakes/fake-runtime.ts';
import { type InstancesUnderTest, MountableStorage, newInstance, startInstances } from './engine-support.ts';

/** What is in a volume goes when another content takes its place, as in a copy of a snapshot that has no record. */
class RecordingStorage extends MountableStorage {
  /** While the disk is full. */
  isFull = false;

  override create(context: StorageContext): StorageDriver {
    const driver = super.create(context);
    const folder = (name: string) => join(context.poolPath, 'containers', name);
    const empty = (name: string) => rmSync(folder(name), { recursive: true, force: true });
    return {
      ...driver,
      withFolder: async (name, use) => {
        if (this.isFull) throw new Error('the disk is full');
        mkdirSync(folder(name), { recursive: true });
        return use(folder(name));
      },
      restoreSnapshot: async ({ name }) => empty(name),
      deleteVolume: async (volume, signal) => {
        empty(volume.name);
        await driver.deleteVolume(volume, signal);
      },
    };
  }
}

interface Recorded {
  readonly under: InstancesUnderTest;
  readonly storage: RecordingStorage;
  /** The configuration that the volume of c1 has a record of; undefined: it has none. */
  readonly recorded: () => string | undefined;
}

/** An engine with c1, which has a record and a snapshot a of an earlier configuration. */
async function withRecord(changes: Partial<NewInstanceRequest> = {}): Promise<Recorded> {
  const root = mkdtempSync(join(tmpdir(), 'lighter-records-'));
  const storage = new RecordingStorage();
  const under = await startInstances({ root, storage, runtime: new FakeRuntime() });
  await under.done(under.instances.create('default', { ...newInstance('c1'), ...changes }).operation);
  const { context } = under.engine;
  await recordInstance(context, under.instances.get('default', 'c1').record, {}, AbortSignal.timeout(1000));
  const path = join(root, 'storage-pools/default/containers/c1/backup.yaml');
  return { under, storage, recorded: () => (existsSync(path) ? readFileSync(path, 'utf8') : undefined) };
}

const c1 = ({ instances }: InstancesUnderTest) => instances.get('default', 'c1').record;

async function snapshot(under: InstancesUnderTest): Promise<void> {
  await under.done(under.engine.instances.snapshots.create(c1(under), { name: 'a', stateful: false }));
}

it('a restored instance has its record when the operation ends', async () => {
  const { under, recorded } = await withRecord({ config: { 'user.a': 'then' } });
  await using _end = under;
  await snapshot(under);

  await under.done(under.engine.instances.restore.start(c1(under), 'a', { stateful: false }));

  expect(recorded()).toMatch(/"user\.a": *"then"/u);
});

it('a rebuilt instance has its record when the operation ends', async () => {
  const { under, recorded } = await withRecord();
  await using _end = under;

  await under.done(under.engine.instances.rebuild.start(c1(under), { type: 'none' }, 'default'));

  expect(recorded()).toMatch(/"c1"/u);
});

it('a restore that a killed daemon left is recorded by the next one, though nothing but the content differs', async () => {
  const { under, recorded } = await withRecord();
  await snapshot(under);
  const { context } = under.engine;
  await recordInstance(context, c1(under), {}, AbortSignal.timeout(1000));

  await using _later = await under.restart(() => {
    const step = { pool: 'default', kind: 'restore', snapshot: 'a' };
    writeFileSync(join(under.root, 'instances/c1/transition'), JSON.stringify(step));
  });

  expect(recorded()).toMatch(/"c1"/u);
});

it('a record that cannot be written does not undo what was done', async () => {
  const { under, storage, recorded } = await withRecord();
  await using _end = under;
  await snapshot(under);
  storage.isFull = true;

  await under.done(under.engine.instances.restore.start(c1(under), 'a', { stateful: false }));

  expect(recorded()).toBeUndefined();
  storage.isFull = false;
  await recordInstance(under.engine.context, c1(under), {}, AbortSignal.timeout(1000));
  expect(recorded()).toMatch(/"c1"/u);
});
