// Unpacks an LXD image (lxd-engine-contract section 2.8): unified (one tar) or split (metadata tar and root file system).
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { parseForeignYaml } from '#src/lib/foreign-yaml.ts';
import type { Host } from '../host.ts';
import { unpackArchive, type UnpackOptions, type UnpackReport, type UnpackTarget } from './unpack.ts';

export interface ImageFiles {
  /** The unified image, or the metadata of a split one. */
  readonly metadata: string;
  readonly rootfs?: string;
}

const METADATA_FILE = 'metadata.yaml';
const MAX_METADATA_BYTES = 1024 * 1024;
const READ_LIMIT_MS = 10_000;
const PARTS = new Set([METADATA_FILE, 'rootfs', 'templates']);

/** Fills the directory with metadata.yaml, rootfs/ and templates/, and with nothing else. AppError 'invalid' when the image is not fit. */
export async function unpackImage(
  host: Host,
  files: ImageFiles,
  target: UnpackTarget,
  options: UnpackOptions,
): Promise<UnpackReport> {
  const rootfs = join(target.directory, 'rootfs');
  const before = await host.status(target.directory);
  const report = await unpackArchive(host, files.metadata, target, options);
  // The archive's own "./" has set owner and mode of the directory, which is ours.
  await host.chown(target.directory, before.uid, before.gid);
  await host.setMode(target.directory, before.mode);
  await checkParts(host, target.directory);
  if (files.rootfs === undefined) {
    await requireKind(host, rootfs, 'directory');
    return report;
  }
  if (await exists(host, rootfs)) throw new AppError('invalid', 'the metadata of a split image must not have a rootfs');
  await host.makeDirectory(rootfs, { mode: 0o755, fresh: true });
  await host.chown(rootfs, target.owners?.uidBase ?? 0, target.owners?.gidBase ?? 0);
  const { limits, signal } = options;
  const left = { maxBytes: limits.maxBytes - report.bytes, maxEntries: limits.maxEntries - report.entries };
  const root = await unpackArchive(host, files.rootfs, { ...target, directory: rootfs }, { limits: left, signal });
  await requireKind(host, rootfs, 'directory');
  return {
    entries: report.entries + root.entries,
    bytes: report.bytes + root.bytes,
    devicesSkipped: report.devicesSkipped + root.devicesSkipped,
  };
}

/** The root file system alone, for images that come without metadata (a plain root tarball). */
export async function unpackRootfs(
  host: Host,
  archive: string,
  target: UnpackTarget,
  options: UnpackOptions,
): Promise<UnpackReport> {
  const rootfs = join(target.directory, 'rootfs');
  await host.makeDirectory(rootfs, { mode: 0o755, fresh: true });
  await host.chown(rootfs, target.owners?.uidBase ?? 0, target.owners?.gidBase ?? 0);
  const report = await unpackArchive(host, archive, { ...target, directory: rootfs }, options);
  await requireKind(host, rootfs, 'directory');
  return report;
}

/** Everything that the engine itself reads later is a plain file or directory: a link would lead it about on the host. */
async function checkParts(host: Host, directory: string): Promise<void> {
  for (const name of await host.list(directory)) {
    if (!PARTS.has(name)) await host.removeTree(join(directory, name));
  }
  const metadata = join(directory, METADATA_FILE);
  await requireKind(host, metadata, 'file');
  const { sizeBytes } = await host.status(metadata);
  if (sizeBytes > MAX_METADATA_BYTES) throw new AppError('invalid', `${METADATA_FILE} has ${sizeBytes} bytes`);
  await checkMetadata(await host.readFile(metadata));
  if (await exists(host, join(directory, 'templates'))) await checkTemplates(host, join(directory, 'templates'));
}

async function checkTemplates(host: Host, directory: string): Promise<void> {
  await requireKind(host, directory, 'directory');
  for (const name of await host.list(directory)) {
    const path = join(directory, name);
    const { kind } = await host.status(path);
    if (kind === 'directory') await checkTemplates(host, path);
    else await requireKind(host, path, 'file');
  }
}

async function checkMetadata(text: string): Promise<void> {
  const metadata = await readMetadata(text).catch((error: unknown) => {
    throw new AppError('invalid', `${METADATA_FILE} is not YAML`, { cause: error });
  });
  if (typeof metadata !== 'object' || metadata === null)
    throw new AppError('invalid', `${METADATA_FILE} is not an object`);
}

/** JSON is YAML as well, and many times faster to read. */
async function readMetadata(text: string): Promise<unknown> {
  if (text.trimStart().startsWith('{')) return JSON.parse(text);
  return await parseForeignYaml(text, { maxAliasCount: 100, limitMs: READ_LIMIT_MS });
}

/** Of the entry itself: a link that leads nowhere is there as well. */
async function exists(host: Host, path: string): Promise<boolean> {
  try {
    await host.status(path);
    return true;
  } catch (error) {
    if (error instanceof AppError && error.kind === 'not_found') return false;
    throw error;
  }
}

async function requireKind(host: Host, path: string, kind: 'file' | 'directory'): Promise<void> {
  const name = path.split('/').slice(-1).join('/');
  if (!(await exists(host, path))) throw new AppError('invalid', `the image has no ${name}`);
  const status = await host.status(path);
  if (status.kind !== kind) throw new AppError('invalid', `${name} of the image is not a ${kind}`);
}
