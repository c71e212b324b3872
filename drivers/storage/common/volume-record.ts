// What a driver of plain directories must remember of an instance: containers/NAME/volume.json.
import { join } from 'node:path';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { Layout } from './layout.ts';

export interface VolumeRecord {
  /** null: made empty. */
  readonly image: string | null;
  /** Map of the owners that are on the disk now. */
  readonly owners: IdMapRange | null;
  /** Project quota of the root, when the file system has them. */
  readonly projectId?: number;
  /** Folder of what the instance changed, for drivers that keep it apart. */
  readonly upper?: string;
}

const FILE = 'volume.json';
/** What LXD maps when /etc/subuid does not say otherwise. */
const FOREIGN_SIZE = 1_000_000_000;

export async function writeRecord(host: Host, instancePath: string, record: VolumeRecord): Promise<void> {
  await host.writeFile(join(instancePath, FILE), `${JSON.stringify(record)}\n`, { mode: 0o600 });
}

/** AppError 'not_found' when there is no such instance. */
export async function readRecord(host: Host, instancePath: string): Promise<VolumeRecord> {
  const text = await host.readFile(join(instancePath, FILE)).catch((error: unknown) => {
    if (kindOf(error) === 'not_found') return undefined;
    throw error;
  });
  if (text === undefined) return foreignRecord(host, instancePath);
  try {
    return JSON.parse(text) as VolumeRecord;
  } catch (error) {
    throw new AppError('internal', `${instancePath}/${FILE} is damaged`, { cause: error });
  }
}

/** Of a volume that LXD made: whose root it is says how its owners are mapped. */
async function foreignRecord(host: Host, instancePath: string): Promise<VolumeRecord> {
  const { uid: uidBase, gid: gidBase } = await host.status(join(instancePath, 'rootfs'));
  return { image: null, owners: uidBase === 0 ? null : { uidBase, gidBase, size: FOREIGN_SIZE } };
}

/** Records of all instances and their snapshots; those that go away meanwhile are left out. */
export async function readRecords(host: Host, layout: Layout): Promise<readonly VolumeRecord[]> {
  const names = await host.list(layout.folder('containers'));
  const paths = [...names.map((name) => layout.instance(name)), ...(await snapshotPaths(host, layout))];
  const records = await Promise.all(
    paths.map((path) =>
      readRecord(host, path).catch((error: unknown) => {
        if (kindOf(error) === 'not_found') return undefined;
        throw error;
      }),
    ),
  );
  return records.filter((record) => record !== undefined);
}

async function snapshotPaths(host: Host, layout: Layout): Promise<readonly string[]> {
  const folder = layout.folder('containers-snapshots');
  const found = (await host.list(folder)).map(async (volume) => {
    return (await host.list(join(folder, volume))).map((snapshot) => join(folder, volume, snapshot));
  });
  return (await Promise.all(found)).flat();
}
