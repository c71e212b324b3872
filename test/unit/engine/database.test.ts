// The database: schema, migrations, and what its tables refuse.
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type EngineDatabase, openDatabase } from '#src/engine/db/database.ts';
import { lockDirectory } from '#src/engine/db/directory-lock.ts';
import { MIGRATIONS, migrate } from '#src/engine/db/schema.ts';
import { Sqlite } from '#src/engine/db/sqlite.ts';
import { NEVER_USED, type NewInstance, ZERO_TIME } from '#src/engine/db/records.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'lighter-db-'));
});
afterEach(() => rm(directory, { recursive: true }));

const instance = (name: string, changes: Partial<NewInstance> = {}): NewInstance => ({
  project: 'default',
  name,
  uuid: `uuid-of-${name}`,
  type: 'container',
  architecture: 'x86_64',
  ephemeral: false,
  stateful: false,
  description: '',
  config: { 'user.a': 'b' },
  devices: { root: { type: 'disk', path: '/', pool: 'default' } },
  profiles: ['default'],
  pool: 'default',
  createdAt: '2026-01-01T00:00:00Z',
  lastUsedAt: NEVER_USED,
  ...changes,
});

function withPool(): EngineDatabase {
  const database = openDatabase(':memory:');
  database.pools.create({ name: 'default', driver: 'dir', description: '', config: {} });
  return database;
}

describe('migrations', () => {
  const next = [...MIGRATIONS, 'CREATE TABLE later (id INTEGER)'];

  it('copy an older database before they change it', () => {
    const path = join(directory, 'db');
    openDatabase(path)[Symbol.dispose]();

    using sqlite = new Sqlite(path);
    migrate(sqlite, path, next);

    expect(existsSync(`${path}.schema-${MIGRATIONS.length}`)).toBe(true);
    using copy = new Sqlite(`${path}.schema-${MIGRATIONS.length}`);
    expect(copy.get('SELECT name FROM profiles')).toEqual({ name: 'default' });
    expect(() => copy.get('SELECT * FROM later')).toThrow('no such table');
  });

  it('leave the database as it was when a step fails', () => {
    const path = join(directory, 'db');
    openDatabase(path)[Symbol.dispose]();

    using sqlite = new Sqlite(path);
    expect(() => migrate(sqlite, path, [...MIGRATIONS, 'CREATE TABLE half (id INTEGER); SELECT nonsense'])).toThrow();

    expect(() => sqlite.get('SELECT * FROM half')).toThrow('no such table');
    expect(sqlite.get('PRAGMA user_version')).toEqual({ user_version: MIGRATIONS.length });
  });

  it('refuse a database of a newer release', () => {
    const path = join(directory, 'db');
    using sqlite = new Sqlite(path);
    migrate(sqlite, path, next);

    expect(() => openDatabase(path)).toThrow('newer than');
  });
});

describe('instances', () => {
  it('come back as they were written, with profiles in their order', () => {
    using database = withPool();
    database.profiles.create({ project: 'default', name: 'a', description: '', config: {}, devices: {} });

    const created = database.instances.create(instance('c1', { profiles: ['default', 'a'] }));

    expect(database.instances.get('default', 'c1')).toEqual({
      ...instance('c1', { profiles: ['default', 'a'] }),
      id: created.id,
    });
  });

  it('refuse a taken name and an unknown profile, leaving nothing', () => {
    using database = withPool();
    database.instances.create(instance('c1'));

    expect(() => database.instances.create(instance('c1', { uuid: 'other' }))).toThrow('already exists');
    expect(() => database.instances.create(instance('c2', { profiles: ['nope'] }))).toThrow(`"nope" doesn't exist`);

    expect(database.instances.names('default')).toEqual(['c1']);
  });

  it('change only what a change names', () => {
    using database = withPool();
    const { id } = database.instances.create(instance('c1'));

    database.instances.update(id, { config: { 'user.b': 'c' }, ephemeral: true });

    expect(database.instances.get('default', 'c1')).toMatchObject({
      config: { 'user.b': 'c' },
      ephemeral: true,
      profiles: ['default'],
      devices: instance('c1').devices,
    });
  });

  it('keep their profiles and pools from being deleted', () => {
    using database = withPool();
    database.instances.create(instance('c1'));

    expect(() => database.pools.delete(database.pools.get('default').id)).toThrow('FOREIGN KEY');
    expect(() => database.profiles.delete(database.profiles.get('default', 'default').id)).toThrow('FOREIGN KEY');
  });

  it('take their snapshots with them', () => {
    using database = withPool();
    const { id } = database.instances.create(instance('c1'));
    const { project: _p, uuid: _u, type: _t, pool: _o, ...rest } = instance('s1');
    database.snapshots.create({ ...rest, instanceId: id, name: 's1', expiresAt: ZERO_TIME });
    expect(database.snapshots.list(id)).toHaveLength(1);

    database.instances.delete(id);

    expect(database.snapshots.listAll()).toEqual([]);
  });
});

it('undoes a whole transaction, inner ones included', () => {
  using database = withPool();

  expect(() =>
    database.transaction(() => {
      database.transaction(() => database.instances.create(instance('c1')));
      throw new Error('no');
    }),
  ).toThrow('no');

  expect(database.instances.list()).toEqual([]);
});

it('counts a warning up that is raised again, and makes it new', () => {
  using database = withPool();
  const trouble = { type: 'Pool', entityUrl: '/1.0/x', message: 'one', severity: 'high' } as const;
  database.warnings.raise(trouble);
  database.warnings.resolve('Pool', '/1.0/x');

  database.warnings.raise({ ...trouble, message: 'two' });

  expect(database.warnings.list()).toMatchObject([{ count: 2, status: 'new', message: 'two' }]);
});

it('lets one process hold a directory', () => {
  const path = join(directory, 'lock');
  const first = lockDirectory(path);

  expect(() => lockDirectory(path)).toThrow('another daemon');

  first[Symbol.dispose]();
  expect(() => lockDirectory(path)[Symbol.dispose]()).not.toThrow();
});
