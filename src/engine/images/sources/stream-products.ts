// Simplestreams documents: which images an index offers, by what names, in which files (lxd-engine-contract section 2.8).
import { AppError } from '#src/lib/errors.ts';
import { ownValue } from '#src/lib/own-value.ts';
import { NEVER_USED } from '../../db/records.ts';
import { architectureName } from '../metadata.ts';
import type { RemoteImage } from './remote.ts';

export interface StreamFile {
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

export interface StreamImage extends RemoteImage {
  /** The kernel's name of it. */
  readonly architecture: string;
  readonly aliases: readonly string[];
  readonly metadata: StreamFile;
  /** Absent: a unified image. */
  readonly rootfs?: StreamFile;
}

type Json = Readonly<Record<string, unknown>>;

const META_TYPES = ['lxd.tar.xz', 'incus.tar.xz'];
const COMBINED_TYPES = ['lxd_combined.tar.gz', 'incus_combined.tar.gz'];
/** Root file systems of containers, and where their metadata tells the fingerprint of both. */
const ROOT_HASHES: Readonly<Record<string, readonly string[]>> = {
  squashfs: ['combined_squashfs_sha256'],
  'root.tar.xz': ['combined_rootxz_sha256', 'combined_sha256'],
};
const SORTED_BY = ['os', 'release', 'variant', 'serial', 'architecture'];

function mapOf(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Paths of the documents with images in an index.json. */
export function productPaths(index: unknown): readonly string[] {
  const entries = Object.values(mapOf(mapOf(index)['index'])).map(mapOf);
  if (!Object.hasOwn(mapOf(index), 'index')) throw new AppError('invalid', 'not an index of simplestreams');
  return entries
    .filter(
      ({ datatype, products }) => datatype === 'image-downloads' && Array.isArray(products) && products.length > 0,
    )
    .map(({ path }) => textOf(path))
    .filter((path) => path !== '');
}

/** What is not for containers, or not whole, is left out. In LXD's order: the first image with a name is who it means. */
export function imagesOf(document: unknown): readonly StreamImage[] {
  return Object.values(mapOf(mapOf(document)['products']))
    .flatMap((product) => productImages(mapOf(product)))
    .sort(byPreference);
}

function productImages(product: Json): readonly StreamImage[] {
  const architecture = architectureName(textOf(product['arch']));
  if (architecture === undefined) return [];
  return Object.entries(mapOf(product['versions'])).flatMap(([serial, version]) => {
    const date = /^(\d{4})(\d{2})(\d{2})/u.exec(serial);
    const createdAt = date ? `${date[1]}-${date[2]}-${date[3]}T00:00:00Z` : '';
    if (Number.isNaN(Date.parse(createdAt))) return [];
    return versionImages(mapOf(version), { product, serial, architecture, createdAt });
  });
}

interface VersionOf {
  readonly product: Json;
  readonly serial: string;
  readonly architecture: string;
  readonly createdAt: string;
}

function versionImages(version: Json, of: VersionOf): readonly StreamImage[] {
  const items = Object.values(mapOf(version['items'])).map(mapOf);
  const label = textOf(version['label']);
  const ofType = (types: readonly string[]) => items.filter(({ ftype }) => types.includes(textOf(ftype)));
  const combined = ofType(COMBINED_TYPES).flatMap((item) => {
    return imageOf({ metadata: item, fingerprint: textOf(item['sha256']), type: 'tar.gz', label }, of);
  });
  const split = ofType(META_TYPES).flatMap((metadata) => {
    return ofType(Object.keys(ROOT_HASHES)).flatMap((rootfs) => {
      const type = textOf(rootfs['ftype']);
      const key = ownValue(ROOT_HASHES, type)?.find((name) => textOf(metadata[name]) !== '') ?? '';
      return imageOf({ metadata, rootfs, fingerprint: textOf(metadata[key]), type, label }, of);
    });
  });
  return [...combined, ...split];
}

interface Files {
  readonly metadata: Json;
  readonly rootfs?: Json;
  readonly fingerprint: string;
  readonly type: string;
  readonly label: string;
}

function imageOf({ metadata, rootfs, fingerprint, type, label }: Files, of: VersionOf): readonly StreamImage[] {
  const files = [metadata, ...(rootfs ? [rootfs] : [])].map(fileOf);
  const [meta, root] = files;
  if (!meta || !/^[0-9a-f]{64}$/u.test(fingerprint) || files.some(({ path }) => path === '')) return [];
  const aliases = textOf(of.product['aliases'])
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  return [
    {
      fingerprint,
      filename: meta.path.split('/').at(-1) ?? '',
      sizeBytes: meta.sizeBytes + (root?.sizeBytes ?? 0),
      properties: propertiesOf(of, { type, label }),
      createdAt: of.createdAt,
      expiresAt: endOfLife(textOf(of.product['support_eol'])),
      architecture: of.architecture,
      aliases,
      metadata: meta,
      ...(root && { rootfs: root }),
    },
  ];
}

function fileOf(item: Json): StreamFile {
  return { path: textOf(item['path']), sha256: textOf(item['sha256']), sizeBytes: Number(item['size'] ?? 0) || 0 };
}

function propertiesOf(
  { product, serial }: VersionOf,
  { type, label }: { readonly type: string; readonly label: string },
): Readonly<Record<string, string>> {
  const told = (name: string) => textOf(product[name]);
  const suffix = label === '' ? '' : ` (${label})`;
  const requirements = Object.entries(mapOf(product['lxd_requirements'])).map(([key, value]) => {
    return [`requirements.${key}`, textOf(value)] as const;
  });
  const all = {
    os: told('os'),
    release: told('release'),
    version: told('version'),
    architecture: told('arch'),
    label,
    serial,
    description: `${told('os')} ${told('release_title')} ${told('arch')}${suffix} (${serial})`,
    ...Object.fromEntries(requirements),
    variant: told('variant'),
    type,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ''));
}

function endOfLife(date: string): string {
  const time = /^\d{4}-\d{2}-\d{2}$/u.test(date) ? Date.parse(`${date}T00:00:00Z`) : Number.NaN;
  return Number.isNaN(time) ? NEVER_USED : new Date(time).toISOString();
}

/** By name, the newest serial first; then what is quicker to unpack. */
function byPreference(left: StreamImage, right: StreamImage): number {
  for (const property of SORTED_BY) {
    const [a = '', b = ''] = [left.properties[property], right.properties[property]];
    if (a !== b) return property === 'serial' ? -compared(a, b) : compared(a, b);
  }
  const types = Object.keys(ROOT_HASHES);
  return types.indexOf(left.properties['type'] ?? '') - types.indexOf(right.properties['type'] ?? '');
}

/** What says nothing comes last. */
function compared(a: string, b: string): number {
  return a !== '' && (b === '' || a < b) ? -1 : 1;
}

/**
 * The image that a name means: `NAME` for the first of `architectures` that has it, `NAME/ARCH` for that one; or a fingerprint
 * or its beginning.
 */
export function findImage(
  images: readonly StreamImage[],
  name: string,
  architectures: readonly string[],
): StreamImage | undefined {
  const named = images.filter(({ aliases, properties }) => {
    return aliases.some((alias) => alias === name || `${alias}/${properties['architecture'] ?? ''}` === name);
  });
  for (const wanted of architectures) {
    const found = named.find(({ architecture }) => architecture === wanted);
    if (found) return found;
  }
  return (
    named[0] ?? (/^[0-9a-f]+$/u.test(name) ? images.find(({ fingerprint }) => fingerprint.startsWith(name)) : undefined)
  );
}
