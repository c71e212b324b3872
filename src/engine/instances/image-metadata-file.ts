// What an instance keeps of its image: metadata.yaml and the templates.
import { join } from 'node:path';
import type { EngineContext, ImageMetadata } from '../context.ts';
import type { InstancePaths } from './instance-paths.ts';

/** JSON, which is YAML too: read at every start, and a YAML parser is slow to load. */
export async function writeImageFiles(
  { host, images }: Pick<EngineContext, 'host' | 'images'>,
  { fingerprint, paths }: { readonly fingerprint: string; readonly paths: InstancePaths },
  signal: AbortSignal,
): Promise<void> {
  const metadata = await images.metadata(fingerprint);
  await host.writeFile(paths.metadata, metadataText(metadata), { mode: 0o600 });
  if (Object.keys(metadata.templates).length === 0) return;
  const from = join(await images.metadataDirectory(fingerprint, signal), 'templates');
  await host.copyTree(from, paths.templates);
}

/** One line. */
export function metadataText(metadata: ImageMetadata): string {
  return `${JSON.stringify(metadataView(metadata))}\n`;
}

/** In LXD's names. */
export function metadataView(metadata: ImageMetadata) {
  const { architecture, creationDate, expiryDate, properties, templates } = metadata;
  const entries = Object.entries(templates).map(([path, { when, createOnly, template, properties }]) => {
    return [path, { when, create_only: createOnly, template, properties }] as const;
  });
  return {
    architecture,
    creation_date: creationDate,
    expiry_date: expiryDate,
    properties,
    templates: Object.fromEntries(entries),
  };
}
