// Names of logical volumes: LXD's (lxd-engine-contract section 5.4), plus those of what nobody sees.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import { checkName } from '../common/layout.ts';
import type { VolumeKind, VolumeRef } from '../driver.ts';

const PREFIX = { container: 'containers_', custom: 'custom_' } as const satisfies Record<VolumeKind, string>;
const IMAGE = 'images_';
/** Work in progress, and what is in use and cannot go yet. */
const HIDDEN = 'lighter_';
const WASTE = `${HIDDEN}waste_`;
/** What LVM allows in a name, without a hyphen at an end: who reads the name could not tell which one is doubled. */
const SNAPSHOT = /^(?!-)[A-Za-z0-9+_.-]*[A-Za-z0-9+_.]$/u;
/** Most that LVM takes, with the name of a group and what it adds for its own parts. */
const MAX_LENGTH = 100;

export interface VolumeName {
  readonly volume: VolumeRef;
  /** undefined: the volume itself. */
  readonly snapshot: string | undefined;
}

/** One for each driver: what others with the same pool have in progress is the leftover of a crash. */
export class VolumeNames {
  readonly #own = `${HIDDEN}${randomUUID().slice(0, 8)}_`;

  image(fingerprint: string): string {
    return `${IMAGE}${doubled(checkName('image', fingerprint))}`;
  }

  volume({ kind, name }: VolumeRef): string {
    const what = kind === 'container' ? 'instance' : 'volume';
    if (name.endsWith('-')) throw new AppError('invalid', `invalid ${what} name ${JSON.stringify(name)} on lvm`);
    return short(`${PREFIX[kind]}${doubled(checkName(what, name))}`);
  }

  snapshot(volume: VolumeRef, snapshot: string): string {
    if (!SNAPSHOT.test(snapshot)) {
      throw new AppError('invalid', `invalid snapshot name ${JSON.stringify(snapshot)} on lvm`);
    }
    return short(`${this.volume(volume)}-${doubled(snapshot)}`);
  }

  work(): string {
    return `${this.#own}${randomUUID()}`;
  }

  waste(): string {
    return `${WASTE}${randomUUID()}`;
  }

  /** Whether nobody who still lives has use for it. */
  isLeftover(name: string, { ownToo = false }: { readonly ownToo?: boolean } = {}): boolean {
    return name.startsWith(HIDDEN) && (ownToo || !name.startsWith(this.#own));
  }
}

export function parseImage(name: string): string | undefined {
  return name.startsWith(IMAGE) ? single(name.slice(IMAGE.length)) : undefined;
}

/** undefined: it is no volume, and no snapshot of one. */
export function parseVolume(name: string): VolumeName | undefined {
  for (const kind of ['container', 'custom'] as const) {
    if (!name.startsWith(PREFIX[kind])) continue;
    const [, own = '', , snapshot] = /^((?:[^-]|--)+)(-((?:[^-]|--)+))?$/u.exec(name.slice(PREFIX[kind].length)) ?? [];
    if (own === '') return undefined;
    return { volume: { kind, name: single(own) }, snapshot: snapshot === undefined ? undefined : single(snapshot) };
  }
  return undefined;
}

function doubled(name: string): string {
  return name.replaceAll('-', '--');
}

function single(name: string): string {
  return name.replaceAll('--', '-');
}

function short(name: string): string {
  if (name.length <= MAX_LENGTH) return name;
  throw new AppError('invalid', `${name} is too long for the name of a logical volume`);
}
