import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findImage, imagesOf, productPaths } from '#src/engine/images/sources/stream-products.ts';

const hash = (digit: string) => digit.repeat(64);

interface Told {
  readonly arch?: string;
  readonly serial?: string;
  readonly aliases?: string;
  readonly digit?: string;
  readonly release?: string;
}

function product({
  arch = 'amd64',
  serial = '20240101_0742',
  aliases = 'deb/12,deb',
  digit = '1',
  release = '12',
}: Told = {}) {
  const items = {
    'lxd.tar.xz': {
      ftype: 'lxd.tar.xz',
      path: `images/${serial}/lxd.tar.xz`,
      size: 10,
      sha256: hash('a'),
      combined_squashfs_sha256: hash(digit),
      combined_rootxz_sha256: hash('f'),
    },
    'root.squashfs': { ftype: 'squashfs', path: `images/${serial}/root.squashfs`, size: 90, sha256: hash('b') },
    'root.tar.xz': { ftype: 'root.tar.xz', path: `images/${serial}/root.tar.xz`, size: 95, sha256: hash('c') },
    'disk.qcow2': { ftype: 'disk-kvm.img', path: 'x', size: 1, sha256: hash('d') },
    delta: { ftype: 'squashfs.vcdiff', path: 'y', delta_base: '20230101', size: 1 },
  };
  return {
    aliases,
    arch,
    os: 'Debian',
    release,
    release_title: 'Bookworm',
    variant: 'default',
    support_eol: '2028-06-30',
    lxd_requirements: { secureboot: 'false' },
    versions: { [serial]: { items } },
  };
}

const document = (...products: readonly object[]) => ({ products: Object.fromEntries(products.entries()) });

describe('the products of simplestreams', () => {
  it('are images with the properties that LXD gives them, squashfs first, without those of machines', () => {
    const images = imagesOf(document(product()));

    expect(images.map(({ fingerprint }) => fingerprint)).toEqual([hash('1'), hash('f')]);
    expect(images[0]).toMatchObject({
      architecture: 'x86_64',
      filename: 'lxd.tar.xz',
      sizeBytes: 100,
      createdAt: '2024-01-01T00:00:00Z',
      expiresAt: '2028-06-30T00:00:00.000Z',
      rootfs: { path: 'images/20240101_0742/root.squashfs', sha256: hash('b') },
      properties: {
        os: 'Debian',
        release: '12',
        architecture: 'amd64',
        serial: '20240101_0742',
        description: 'Debian Bookworm amd64 (20240101_0742)',
        variant: 'default',
        type: 'squashfs',
        'requirements.secureboot': 'false',
      },
    });
  });

  it('are found by name for this machine, by name and architecture, and by fingerprint, the newest first', () => {
    const images = imagesOf(
      document(
        product({ digit: '1' }),
        product({ digit: '2', serial: '20250101_0742' }),
        product({ digit: '3', arch: 'arm64' }),
        product({ digit: '4', arch: 'arm64', aliases: 'only' }),
      ),
    );
    const find = (name: string) => findImage(images, name, ['x86_64', 'i686'])?.fingerprint;

    expect(find('deb')).toBe(hash('2'));
    expect(find('deb/12/arm64')).toBe(hash('3'));
    expect(find('only')).toBe(hash('4'));
    expect(find(hash('1').slice(0, 12))).toBe(hash('1'));
    expect(find('nothing')).toBeUndefined();
  });

  it('of a combined file are one file', () => {
    const items = { 'lxd.tar.gz': { ftype: 'lxd_combined.tar.gz', path: 'u.tar.gz', size: 5, sha256: hash('9') } };
    const [image] = imagesOf(document({ ...product(), versions: { '20240101': { items } } }));

    expect(image).toMatchObject({ fingerprint: hash('9'), sizeBytes: 5 });
    expect(image?.rootfs).toBeUndefined();
  });

  it('never make the reader fail, whatever a server sends', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const strange = value as object;
        imagesOf(value);
        imagesOf({ products: { a: value, b: { ...product(), versions: value }, c: { ...product(), ...strange } } });
        imagesOf({ products: { a: { ...product(), versions: { '20240101': { items: { x: value } } } } } });
      }),
    );
  });
});

it('an index names the documents with images', () => {
  const index = {
    images: { datatype: 'image-downloads', path: 'streams/v1/images.json', products: ['a'] },
    empty: { datatype: 'image-downloads', path: 'no', products: [] },
    other: { datatype: 'image-ids', path: 'no', products: ['a'] },
  };

  expect(productPaths({ index })).toEqual(['streams/v1/images.json']);
  expect(() => productPaths('<html>')).toThrow('not an index');
});
