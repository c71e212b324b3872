// The schema as an ordered list of migrations; an older database is copied before it is changed.
import { renameSync, rmSync } from 'node:fs';
import { AppError } from '#src/lib/errors.ts';
import type { Sqlite } from './sqlite.ts';

/** Never edit one that was released: add the next. `user_version` counts those that were applied. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  CREATE TABLE projects (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL, config TEXT NOT NULL
  ) STRICT;
  INSERT INTO projects (name, description, config) VALUES ('default', 'Default LXD project',
    '{"features.images":"true","features.networks":"true","features.profiles":"true","features.storage.volumes":"true"}');
  CREATE TABLE certificates (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, type TEXT NOT NULL, name TEXT NOT NULL,
    certificate TEXT NOT NULL, restricted INTEGER NOT NULL, projects TEXT NOT NULL
  ) STRICT;
  CREATE TABLE storage_pools (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, description TEXT NOT NULL,
    config TEXT NOT NULL
  ) STRICT;
  CREATE TABLE profiles (
    id INTEGER PRIMARY KEY, project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE, name TEXT NOT NULL,
    description TEXT NOT NULL, config TEXT NOT NULL, devices TEXT NOT NULL, UNIQUE (project, name)
  ) STRICT;
  INSERT INTO profiles (project, name, description, config, devices)
    VALUES ('default', 'default', 'Default LXD profile', '{}', '{}');
  CREATE TABLE images (
    id INTEGER PRIMARY KEY, project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
    fingerprint TEXT NOT NULL, filename TEXT NOT NULL, size_bytes INTEGER NOT NULL, is_public INTEGER NOT NULL,
    auto_update INTEGER NOT NULL, cached INTEGER NOT NULL, architecture TEXT NOT NULL, type TEXT NOT NULL,
    properties TEXT NOT NULL, update_source TEXT NOT NULL, profiles TEXT NOT NULL, created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL, last_used_at TEXT NOT NULL, uploaded_at TEXT NOT NULL, UNIQUE (project, fingerprint)
  ) STRICT;
  CREATE TABLE image_aliases (
    id INTEGER PRIMARY KEY, project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE, name TEXT NOT NULL,
    description TEXT NOT NULL, image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE, UNIQUE (project, name)
  ) STRICT;
  CREATE INDEX image_aliases_by_image ON image_aliases (image_id);
  CREATE TABLE instances (
    id INTEGER PRIMARY KEY, project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE, name TEXT NOT NULL,
    uuid TEXT NOT NULL UNIQUE, type TEXT NOT NULL, architecture TEXT NOT NULL, ephemeral INTEGER NOT NULL,
    stateful INTEGER NOT NULL, description TEXT NOT NULL, config TEXT NOT NULL, devices TEXT NOT NULL,
    pool TEXT NOT NULL REFERENCES storage_pools (name), created_at TEXT NOT NULL, last_used_at TEXT NOT NULL,
    UNIQUE (project, name)
  ) STRICT;
  CREATE INDEX instances_by_pool ON instances (pool);
  CREATE TABLE instance_profiles (
    instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    profile_id INTEGER NOT NULL REFERENCES profiles (id), PRIMARY KEY (instance_id, position)
  ) STRICT;
  CREATE INDEX instance_profiles_by_profile ON instance_profiles (profile_id);
  CREATE TABLE instance_snapshots (
    id INTEGER PRIMARY KEY, instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    name TEXT NOT NULL, architecture TEXT NOT NULL, ephemeral INTEGER NOT NULL, stateful INTEGER NOT NULL,
    description TEXT NOT NULL, config TEXT NOT NULL, devices TEXT NOT NULL, profiles TEXT NOT NULL,
    created_at TEXT NOT NULL, last_used_at TEXT NOT NULL, expires_at TEXT NOT NULL, UNIQUE (instance_id, name)
  ) STRICT;
  CREATE TABLE instance_volumes (
    instance_id INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE, description TEXT NOT NULL,
    config TEXT NOT NULL
  ) STRICT;
  CREATE TABLE instance_snapshot_volumes (
    snapshot_id INTEGER PRIMARY KEY REFERENCES instance_snapshots (id) ON DELETE CASCADE, description TEXT NOT NULL,
    config TEXT NOT NULL
  ) STRICT;
  CREATE TABLE image_volumes (
    pool TEXT NOT NULL REFERENCES storage_pools (name) ON DELETE CASCADE,
    image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE, description TEXT NOT NULL, config TEXT NOT NULL,
    PRIMARY KEY (pool, image_id)
  ) STRICT;
  CREATE TABLE instance_backups (
    id INTEGER PRIMARY KEY, instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    name TEXT NOT NULL, file TEXT NOT NULL UNIQUE, instance_only INTEGER NOT NULL, created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL, UNIQUE (instance_id, name)
  ) STRICT;
  CREATE TABLE storage_volumes (
    id INTEGER PRIMARY KEY, pool TEXT NOT NULL REFERENCES storage_pools (name),
    project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE, name TEXT NOT NULL, host_name TEXT NOT NULL,
    description TEXT NOT NULL, config TEXT NOT NULL, created_at TEXT NOT NULL, pending TEXT NOT NULL,
    UNIQUE (pool, project, name), UNIQUE (pool, host_name)
  ) STRICT;
  CREATE TABLE storage_volume_snapshots (
    id INTEGER PRIMARY KEY, volume_id INTEGER NOT NULL REFERENCES storage_volumes (id) ON DELETE CASCADE,
    name TEXT NOT NULL, host_name TEXT NOT NULL, description TEXT NOT NULL, config TEXT NOT NULL,
    created_at TEXT NOT NULL, expires_at TEXT NOT NULL, pending TEXT NOT NULL, UNIQUE (volume_id, name),
    UNIQUE (volume_id, host_name)
  ) STRICT;
  CREATE TABLE storage_volume_backups (
    id INTEGER PRIMARY KEY, volume_id INTEGER NOT NULL REFERENCES storage_volumes (id) ON DELETE CASCADE,
    name TEXT NOT NULL, file TEXT NOT NULL UNIQUE, instance_only INTEGER NOT NULL, created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL, UNIQUE (volume_id, name)
  ) STRICT;
  CREATE TABLE networks (
    id INTEGER PRIMARY KEY, project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE, name TEXT NOT NULL,
    type TEXT NOT NULL, description TEXT NOT NULL, config TEXT NOT NULL, pending TEXT NOT NULL, UNIQUE (project, name)
  ) STRICT;
  CREATE TABLE network_forwards (
    id INTEGER PRIMARY KEY, network_id INTEGER NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    listen_address TEXT NOT NULL, description TEXT NOT NULL, config TEXT NOT NULL, ports TEXT NOT NULL,
    UNIQUE (network_id, listen_address)
  ) STRICT;
  CREATE TABLE warnings (
    uuid TEXT PRIMARY KEY, type TEXT NOT NULL, entity_url TEXT NOT NULL, project TEXT NOT NULL, message TEXT NOT NULL,
    severity TEXT NOT NULL, status TEXT NOT NULL, count INTEGER NOT NULL, first_seen_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL, UNIQUE (type, entity_url)
  ) STRICT;
  `,
  `
  ALTER TABLE instance_backups ADD COLUMN optimized INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE storage_volume_backups ADD COLUMN optimized INTEGER NOT NULL DEFAULT 0;
  `,
  // Of projects that share images but have profiles of their own.
  `
  CREATE TABLE image_profiles (
    image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    project TEXT NOT NULL REFERENCES projects (name) ON UPDATE CASCADE ON DELETE CASCADE, profiles TEXT NOT NULL,
    PRIMARY KEY (image_id, project)
  ) STRICT;
  `,
  // Pools that were being made or removed when the daemon was killed.
  "ALTER TABLE storage_pools ADD COLUMN pending TEXT NOT NULL DEFAULT ''",
];

/** Brings the schema up to date in one transaction per step. Refuses a database that a newer release wrote. */
export function migrate(sqlite: Sqlite, path: string, migrations: readonly string[] = MIGRATIONS): void {
  const version = Number(sqlite.get('PRAGMA user_version')?.['user_version'] ?? 0);
  if (version > migrations.length) {
    throw new AppError('unsupported', `database ${path} has schema ${version}, newer than ${migrations.length}`);
  }
  if (version > 0 && version < migrations.length) backUp(sqlite, path, version);
  for (const [index, script] of migrations.entries()) {
    if (index < version) continue;
    sqlite.transaction(() => {
      sqlite.script(script);
      sqlite.script(`PRAGMA user_version = ${index + 1}`);
    });
  }
}

/** Under a temporary name first: a copy that was cut short must not pass for one. */
function backUp(sqlite: Sqlite, path: string, version: number): void {
  if (path === ':memory:') return;
  const copy = `${path}.schema-${version}`;
  rmSync(`${copy}.part`, { force: true });
  sqlite.run('VACUUM INTO ?', `${copy}.part`);
  renameSync(`${copy}.part`, copy);
}
