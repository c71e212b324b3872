// The index of a migration is JSON of a Go structure without names of its own for JSON: LXD writes those of the fields, and reads them
// in any case of letters.
import { AppError } from '#src/lib/errors.ts';

/** What LXD calls the backup configuration, as far as its other end reads it. */
export function indexOfVolume(volume: object, snapshots: readonly object[]): { readonly config: object } {
  return { config: { Volume: volume, VolumeSnapshots: snapshots } };
}

/** With `volume` and `volume_snapshots` in `config`, as backups have them; nobody vouches for it. AppError 'invalid' for what is no JSON. */
export function parseIndex(document: Buffer): unknown {
  let data: unknown;
  try {
    data = JSON.parse(document.toString());
  } catch (cause) {
    throw new AppError('invalid', 'The index of the migration is not JSON', { cause });
  }
  if (!isObject(data) || !isObject(data['config'])) return data;
  const config = Object.entries(data['config']).map(([key, value]) => [plainName(key), value]);
  return { ...data, config: Object.fromEntries(config) };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function plainName(key: string): string {
  const name = key.toLowerCase();
  return name === 'volumesnapshots' ? 'volume_snapshots' : name;
}
