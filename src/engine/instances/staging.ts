// A directory that an instance is received into: its root is mounted there, beside the files that come with it.
import { randomUUID } from 'node:crypto';
import { lstat, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import { parseMetadata } from '../images/metadata.ts';
import { metadataText } from './image-metadata-file.ts';

const FOLDER = 'migrations';
const MAX_FILE_BYTES = 4 << 20;
const MAX_TEMPLATES = 1000;

/** `use` gets the directory; what the peer put into it besides the root goes away afterwards. */
export async function withStaging(
  { host, paths }: Pick<EngineContext, 'host' | 'paths'>,
  rootfsPath: string,
  use: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = join(paths.root, FOLDER, randomUUID());
  const target = join(directory, 'rootfs');
  await host.makeDirectory(join(paths.root, FOLDER), { mode: 0o700 });
  await host.makeDirectory(directory, { mode: 0o700, fresh: true });
  await host.makeDirectory(target, { mode: 0o700, fresh: true });
  try {
    await host.mounts.mount({ source: rootfsPath, target, type: 'none', flags: ['bind'] });
    await use(directory);
  } finally {
    await remove(host, directory);
  }
}

/** Refuses while something is mounted in it: that would be somebody's root. */
async function remove(host: Host, directory: string): Promise<void> {
  await host.mounts.unmount(join(directory, 'rootfs'));
  await host.removeTree(directory);
}

/** What a daemon left that was killed while it received. */
export async function cleanStaging({ host, paths, log }: Pick<EngineContext, 'host' | 'paths' | 'log'>): Promise<void> {
  for (const name of await host.list(join(paths.root, FOLDER))) {
    const directory = join(paths.root, FOLDER, name);
    await remove(host, directory).catch((error: unknown) =>
      log.warn('a transfer left something', { directory, error }),
    );
  }
}

/** Takes metadata.yaml and the templates from what a peer sent: regular files alone, for they are read as root later. */
export async function adoptFiles(host: Host, from: string, to: string): Promise<void> {
  const metadata = await regularFile(join(from, 'metadata.yaml'));
  const templates: Record<string, string> = {};
  const folder = await lstat(join(from, 'templates')).catch(() => undefined);
  const names = folder?.isDirectory() ? await readdir(join(from, 'templates')) : [];
  if (names.length > MAX_TEMPLATES) throw new AppError('invalid', 'The instance has too many templates');
  for (const name of names) {
    const text = await regularFile(join(from, 'templates', name));
    if (text !== undefined) templates[name] = text;
  }
  await writeInstanceFiles(host, { ...(metadata !== undefined && { metadata }), templates }, to);
}

export interface InstanceFiles {
  readonly metadata?: string;
  /** By name, which has no slash. */
  readonly templates: Readonly<Record<string, string>>;
}

/** Instead of what is there. AppError 'invalid' for metadata that is none. */
export async function writeInstanceFiles(
  host: Host,
  { metadata, templates }: InstanceFiles,
  to: string,
): Promise<void> {
  await host.makeDirectory(to, { mode: 0o711 });
  await rm(join(to, 'metadata.yaml'), { force: true });
  if (metadata !== undefined) {
    const text = metadataText(await parseMetadata(metadata));
    await host.writeFile(join(to, 'metadata.yaml'), text, { mode: 0o600 });
  }
  await rm(join(to, 'templates'), { recursive: true, force: true });
  if (Object.keys(templates).length === 0) return;
  await host.makeDirectory(join(to, 'templates'), { mode: 0o700 });
  for (const [name, text] of Object.entries(templates)) {
    if (name === '.' || name === '..') throw new AppError('invalid', `Invalid name of a template: ${name}`);
    await host.writeFile(join(to, 'templates', name), text, { mode: 0o600 });
  }
}

async function regularFile(path: string): Promise<string | undefined> {
  const status = await lstat(path).catch(() => undefined);
  if (!status?.isFile()) return undefined;
  if (status.size > MAX_FILE_BYTES) throw new AppError('invalid', `${path} is larger than ${MAX_FILE_BYTES} bytes`);
  return readFile(path, 'utf8');
}
