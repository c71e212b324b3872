// The metadata tarball that turns a bare root file system into an LXD image.
import { AppError } from '#src/lib/errors.ts';
import { ownValue } from '#src/lib/own-value.ts';
import type { SpawnImage } from '../driver.ts';
import { writeTar } from '#src/lib/tar.ts';

/** Glance's and Debian's names of architectures → LXD's. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  amd64: 'x86_64',
  arm64: 'aarch64',
  armhf: 'armv7l',
  armv7: 'armv7l',
  i386: 'i686',
  i586: 'i686',
  ppc64el: 'ppc64le',
};

export const CACHE_KEY_PROPERTY = 'nova.cache_key';
/** Of images that were disk images: the virtual size. */
export const DISK_BYTES_PROPERTY = 'nova.disk_bytes';

/** What the image asks for, else what the engine runs. AppError 'invalid' when the engine cannot run it. */
export function architectureOf(image: SpawnImage, supported: readonly string[]): string {
  const wanted = image.properties['hw_architecture'] ?? image.properties['architecture'];
  if (wanted === undefined || wanted === '') return supported[0] ?? 'x86_64';
  const name = ownValue(ARCHITECTURES, wanted) ?? wanted;
  if (supported.includes(name)) return name;
  throw new AppError('invalid', `the image is for ${wanted}, this host runs ${supported.join(', ')}`);
}

/** The same cache key gives the same bytes, so that the engine's fingerprint of an image does not depend on who uploads it. */
export function metadataTarball(cacheKey: string, architecture: string): Buffer {
  const metadata = {
    architecture,
    // Required, and the day of the upload would make every upload another image.
    creation_date: 1,
    properties: { description: 'Image of OpenStack', [CACHE_KEY_PROPERTY]: cacheKey },
    templates: { '/etc/hostname': { when: ['create', 'copy'], template: 'hostname.tpl' } },
  };
  return writeTar([
    { name: 'metadata.yaml', content: `${JSON.stringify(metadata, null, 1)}\n` },
    { name: 'templates/hostname.tpl', content: '{{ config_get("user.nova.hostname", "localhost") }}\n' },
  ]);
}
