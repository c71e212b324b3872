// The engine's database: one file, one connection, one object per family of tables.
import { BackupRows } from './backups.ts';
import { AliasRows, ImageRows } from './images.ts';
import { InstanceRows, SnapshotRows } from './instances.ts';
import { NetworkForwardRows, NetworkRows } from './networks.ts';
import { ProfileRows } from './profiles.ts';
import { ProjectRows } from './projects.ts';
import { RootVolumeRows } from './root-volumes.ts';
import { VolumeRows, VolumeSnapshotRows } from './volumes.ts';
import { migrate } from './schema.ts';
import { CertificateRows, PoolRows, ServerRows, WarningRows } from './server.ts';
import { Sqlite } from './sqlite.ts';

export interface EngineDatabase extends Disposable {
  readonly instances: InstanceRows;
  readonly snapshots: SnapshotRows;
  readonly backups: BackupRows;
  readonly volumeBackups: BackupRows;
  readonly volumes: VolumeRows;
  readonly volumeSnapshots: VolumeSnapshotRows;
  readonly rootVolumes: RootVolumeRows;
  readonly profiles: ProfileRows;
  readonly projects: ProjectRows;
  readonly images: ImageRows;
  readonly aliases: AliasRows;
  readonly networks: NetworkRows;
  readonly networkForwards: NetworkForwardRows;
  readonly pools: PoolRows;
  readonly certificates: CertificateRows;
  readonly server: ServerRows;
  readonly warnings: WarningRows;
  /** All or nothing. `work` must not wait. */
  transaction<T>(work: () => T): T;
}

/** Opens, or makes, the database; its directory must be there. `:memory:` for tests. */
export function openDatabase(path: string): EngineDatabase {
  const sqlite = new Sqlite(path);
  try {
    migrate(sqlite, path);
  } catch (error) {
    sqlite[Symbol.dispose]();
    throw error;
  }
  const projects = new ProjectRows(sqlite);
  return {
    instances: new InstanceRows(sqlite, projects),
    snapshots: new SnapshotRows(sqlite),
    backups: new BackupRows(sqlite, { table: 'instance_backups', owner: 'instance_id', owners: 'instances' }),
    volumeBackups: new BackupRows(sqlite, {
      table: 'storage_volume_backups',
      owner: 'volume_id',
      owners: 'storage_volumes',
    }),
    volumes: new VolumeRows(sqlite),
    volumeSnapshots: new VolumeSnapshotRows(sqlite),
    rootVolumes: new RootVolumeRows(sqlite),
    profiles: new ProfileRows(sqlite, projects),
    projects,
    images: new ImageRows(sqlite, projects),
    aliases: new AliasRows(sqlite, projects),
    networks: new NetworkRows(sqlite),
    networkForwards: new NetworkForwardRows(sqlite),
    pools: new PoolRows(sqlite),
    certificates: new CertificateRows(sqlite),
    server: new ServerRows(sqlite),
    warnings: new WarningRows(sqlite),
    transaction: (work) => sqlite.transaction(work),
    [Symbol.dispose]: () => sqlite[Symbol.dispose](),
  };
}
