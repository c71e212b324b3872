// What is kept of an instance beside its root, in its own volume, as LXD keeps it: backup.yaml, metadata.yaml and templates/. A pool can
// be taken over with this alone.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { backupConfig, toText } from '../backups/documents.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { type InstancePaths, instancePaths } from '../instances/instance-paths.ts';

export const RECORD_FILE = 'backup.yaml';
/** Of the present life of the instance: what differs in nothing else is not written again. */
const FLEETING = /^volatile\.(?:last_state\.|idmap\.current$|.+\.(?:host_name$|last_state\.))/u;

export interface FolderFiles {
  /** backup.yaml; JSON, which is YAML too. */
  readonly record: string;
  /** Undefined: the instance has none. */
  readonly metadata: string | undefined;
  readonly templates: ReadonlyMap<string, string>;
  /** Of all that is worth writing. */
  readonly digest: string;
}

export async function folderFiles(context: EngineContext, record: InstanceRecord): Promise<FolderFiles> {
  const { database, host, paths } = context;
  const config = backupConfig(context, record, database.snapshots.list(record.id));
  const place = instancePaths(paths, record);
  const metadata = (await host.exists(place.metadata)) ? await host.readFile(place.metadata) : undefined;
  const templates = new Map<string, string>();
  for (const name of await host.list(place.templates)) {
    templates.set(name, await host.readFile(join(place.templates, name)));
  }
  const lasting = JSON.stringify([config, metadata, [...templates]], (key, value: unknown) => {
    return FLEETING.test(key) || key === 'last_used_at' ? undefined : value;
  });
  const digest = createHash('sha256').update(lasting).digest('hex');
  return { record: toText(config), metadata, templates, digest };
}

/** backup.yaml is replaced in one step, and last: with it the folder is complete. */
export async function writeFolder(host: Host, directory: string, files: FolderFiles): Promise<void> {
  const { record, metadata, templates } = files;
  const path = join(directory, 'metadata.yaml');
  if (metadata === undefined) await host.removeTree(path);
  else await host.writeFile(path, metadata, { mode: 0o600 });
  const folder = join(directory, 'templates');
  if (templates.size > 0) await host.makeDirectory(folder, { mode: 0o700 });
  for (const [name, content] of templates) await host.writeFile(join(folder, name), content, { mode: 0o600 });
  for (const name of await host.list(folder)) if (!templates.has(name)) await host.removeTree(join(folder, name));
  await host.writeFile(join(directory, RECORD_FILE), record, { mode: 0o400 });
}

/** Where it is noted what was written last. */
export function noteOf({ home }: InstancePaths): string {
  return join(home, 'recorded');
}
