// Where things lie in a pool: LXD's own tree (lxd-engine-contract section 5), plus what we keep beside it.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';

/** LXD's folders and their modes. */
export const FOLDERS = {
  containers: 0o711,
  'containers-snapshots': 0o711,
  custom: 0o700,
  'custom-snapshots': 0o700,
  images: 0o700,
  buckets: 0o711,
  'virtual-machines': 0o700,
  'virtual-machines-snapshots': 0o700,
} as const satisfies Readonly<Record<string, number>>;

/** Ours: images that are deleted but still used, and work in progress. Everything in `work` is waste after a crash. */
export const OWN_FOLDERS = { deleted: 0o700, shifted: 0o711, work: 0o711 } as const satisfies Readonly<
  Record<string, number>
>;

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;

/** Names are validated at the border already; a driver that builds paths of them looks again. */
export function checkName(kind: 'image' | 'instance' | 'pool' | 'volume', name: string): string {
  if (!NAME.test(name) || name.includes('..'))
    throw new AppError('invalid', `invalid ${kind} name ${JSON.stringify(name)}`);
  return name;
}

export class Layout {
  readonly root: string;

  constructor(poolPath: string) {
    this.root = poolPath;
  }

  folder(name: keyof typeof FOLDERS | keyof typeof OWN_FOLDERS): string {
    return join(this.root, name);
  }

  image(fingerprint: string): string {
    return join(this.folder('images'), checkName('image', fingerprint));
  }

  /** Where an image lies that was deleted while instances use it. */
  deletedImage(fingerprint: string): string {
    return join(this.folder('deleted'), checkName('image', fingerprint));
  }

  instance(name: string): string {
    return join(this.folder('containers'), checkName('instance', name));
  }

  rootfs(name: string): string {
    return join(this.instance(name), 'rootfs');
  }
}
