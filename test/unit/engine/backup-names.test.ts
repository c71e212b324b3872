// Where LXD has the files of backups there are links to ours.
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { BackupFiles } from '#src/engine/backups/backup-files.ts';
import { BackupNames } from '#src/engine/backups/backup-names.ts';
import { enginePaths } from '#src/engine/context.ts';
import { type EngineDatabase, openDatabase } from '#src/engine/db/database.ts';
import { NEVER_USED, ZERO_TIME } from '#src/engine/db/records.ts';
import { createEvents } from '#src/engine/events/events.ts';
import { type Log, silentLog } from '#src/lib/log.ts';

let root: string;
let database: EngineDatabase;
const warned = vi.fn<Log['warn']>();
const events = createEvents();
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'lighter-names-'));
  await mkdir(join(root, 'backups/instances'), { recursive: true });
  await mkdir(join(root, 'backups/custom'));
  warned.mockClear();
  database = openDatabase(':memory:');
  database.pools.create({ name: 'p1', driver: 'dir', description: '', config: {} });
});
afterEach(async () => {
  database[Symbol.dispose]();
  await rm(root, { recursive: true });
});

const times = { createdAt: '2026-01-01T00:00:00Z', expiresAt: ZERO_TIME };
const at = (...path: string[]): string => join(root, 'backups', ...path);

async function backUp(kind: 'instances' | 'custom', owner: number, name: string): Promise<void> {
  const rows = kind === 'instances' ? database.backups : database.volumeBackups;
  await writeFile(at(kind, `file-${name}`), name);
  rows.create({ instanceId: owner, name, file: `file-${name}`, instanceOnly: false, optimized: false, ...times });
}

function instance(): number {
  return database.instances.create({
    project: 'default',
    name: 'c1',
    uuid: 'u1',
    type: 'container',
    architecture: 'x86_64',
    ephemeral: false,
    stateful: false,
    description: '',
    config: {},
    devices: {},
    profiles: [],
    pool: 'p1',
    createdAt: times.createdAt,
    lastUsedAt: NEVER_USED,
  }).id;
}

function volume(): number {
  const volume = { pool: 'p1', project: 'default', name: 'v1', hostName: 'default_v1', description: '', config: {} };
  return database.volumes.create({ ...volume, createdAt: times.createdAt, pending: '' }).id;
}

async function follow(): Promise<AsyncDisposable> {
  const names = new BackupNames({ database, log: { ...silentLog, warn: warned }, paths: enginePaths(root) }, events);
  await names.start();
  return { [Symbol.asyncDispose]: () => names.stop() };
}

const happened = (action: string): void => events.lifecycle({ action, source: '/1.0/any' });

it('leads from the names that they have to the files, and follows what is renamed', async () => {
  const owner = instance();
  await backUp('instances', owner, 'b1');
  const custom = volume();
  await using _names = await follow();

  await backUp('custom', custom, 'b2');
  happened('storage-volume-backup-created');
  const before = [at('instances/c1/b1'), at('custom/p1/default_v1/b2')].map((path) => readFileSync(path, 'utf8'));
  database.instances.rename(owner, { project: 'default', name: 'c2' });
  happened('instance-renamed');
  database.volumeBackups.rename(database.volumeBackups.find(custom, 'b2')?.id ?? 0, 'b3');
  happened('storage-volume-backup-renamed');

  expect(before).toEqual(['b1', 'b2']);
  expect(readFileSync(at('instances/c2/b1'), 'utf8')).toBe('b1');
  expect(readFileSync(at('custom/p1/default_v1/b3'), 'utf8')).toBe('b2');
  expect([at('instances/c1'), at('custom/p1/default_v1/b2')].map((path) => existsSync(path))).toEqual([false, false]);
});

it('leaves no directory of what is gone', async () => {
  const custom = volume();
  await backUp('custom', custom, 'b1');
  await using _names = await follow();

  database.volumes.delete(custom);
  happened('storage-volume-deleted');

  expect([at('custom/p1'), at('custom')].map((path) => existsSync(path))).toEqual([false, true]);
});

it('gives no name that leads elsewhere or stands for an unfinished file', async () => {
  const custom = volume();
  for (const name of ['..', 'b1.part']) await backUp('custom', custom, name);
  await using _names = await follow();

  expect(existsSync(at('custom/p1'))).toBe(false);
  expect(warned).not.toHaveBeenCalled();
});

it('is not taken for files that nobody knows', async () => {
  await backUp('instances', instance(), 'b1');
  await using _names = await follow();

  await new BackupFiles(at('instances')).removeUnknown(() => new Set());

  expect(lstatSync(at('instances/c1/b1')).isSymbolicLink()).toBe(true);
});
