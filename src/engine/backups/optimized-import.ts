// Reads the streams of an optimized backup in one pass. Nobody vouches for it: which streams there must be is checked before any is read.
import { Ajv, type ValidateFunction } from 'ajv';
import type { NestedStream, StorageDriver, VolumeRef } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { readMember } from '#src/host/unpack/read-member.ts';
import { type TarMember, withTarMembers } from '#src/host/unpack/tar-members.ts';
import { AppError } from '#src/lib/errors.ts';
import { OPTIMIZED_HEADER, requireStreams, streamName, type StreamPlaces } from './optimized-export.ts';
import type { BackupIndex } from './read-index.ts';

const MAX_HEADER_BYTES = 16 * 2 ** 20;
const MAX_NESTED = 10_000;

interface Expected {
  /** Undefined: the volume itself. */
  readonly snapshot: string | undefined;
  readonly nested: readonly { readonly path: string; readonly readonly: boolean }[];
}

export interface ReceivedBackup {
  readonly path: string;
  readonly index: BackupIndex;
  readonly places: StreamPlaces;
  readonly storage: StorageDriver;
  readonly volume: VolumeRef;
  /** Of the files in the streams. */
  readonly owners: (snapshot: string | undefined) => IdMapRange | null;
  /** What a snapshot is called on the pool. */
  readonly placeOf?: (snapshot: string) => string;
  /** After each of them. */
  readonly arrived: (snapshot: string | undefined) => Promise<void>;
}

/** AppError 'invalid' with LXD's text when the pool has another format, 'unsupported' when it has none. */
export function checkBackend({ backend }: BackupIndex, storage: StorageDriver): void {
  const { name } = storage.info;
  if (backend !== name) {
    const text = `Optimized backup storage driver "${backend}" differs from the target storage pool driver "${name}"`;
    throw new AppError('invalid', text);
  }
  requireStreams(storage);
}

/** Into a volume that is empty; each stream builds on the one before it. */
export async function receiveBackup(host: Host, backup: ReceivedBackup, signal: AbortSignal): Promise<void> {
  const { path, storage, volume, places, owners, placeOf = (name) => name, arrived } = backup;
  const streams = requireStreams(storage);
  const expected = await expectedStreams(host, backup, signal);
  const order = expected.flatMap(({ snapshot, nested }) => [
    streamName(places, { snapshot, path: '/' }),
    ...nested.map((one) => streamName(places, { snapshot, path: one.path })),
  ]);
  await withTarMembers(host, { path, signal }, async (members) => {
    const sequence = new Sequence(members, order);
    let base: string | undefined;
    for (const { snapshot, nested } of expected) {
      const place = snapshot === undefined ? undefined : placeOf(snapshot);
      const { content } = await sequence.next();
      const more = nested.length > 0 ? { nested: nestedStreams(sequence, nested) } : {};
      await streams.receive({ volume, snapshot: place, base, owners: owners(snapshot), ...more }, content, signal);
      await arrived(snapshot);
      base = place;
    }
  });
}

async function* nestedStreams(sequence: Sequence, nested: Expected['nested']): AsyncGenerator<NestedStream> {
  for (const one of nested) yield { ...one, stream: (await sequence.next()).content };
}

/** Members in the one order in which they can be received. */
class Sequence {
  readonly #members: AsyncGenerator<TarMember>;
  readonly #order: string[];

  constructor(members: AsyncGenerator<TarMember>, order: readonly string[]) {
    this.#members = members;
    this.#order = [...order];
  }

  /** AppError 'invalid' when it is not there, or comes later than another. */
  async next(): Promise<TarMember> {
    const wanted = this.#order.shift() ?? '';
    for (;;) {
      const member = await this.#members.next();
      if (member.done === true) throw new AppError('invalid', `Backup is missing at "${wanted}"`);
      const { name } = member.value;
      if (name === wanted) return member.value;
      if (this.#order.includes(name)) throw new AppError('invalid', `"${name}" comes before "${wanted}" in the backup`);
    }
  }
}

async function expectedStreams(
  host: Host,
  { path, index, storage }: ReceivedBackup,
  signal: AbortSignal,
): Promise<readonly Expected[]> {
  const all = [...index.snapshots, undefined];
  if (new Set(all).size !== all.length) throw new AppError('invalid', 'The backup names a snapshot twice');
  if (!index.optimizedHeader) return all.map((snapshot) => ({ snapshot, nested: [] }));
  if (!requireStreams(storage).nests) throw new AppError('invalid', 'The backup has a header that its format has not');
  const text = await readMember(host, path, { name: OPTIMIZED_HEADER, maxBytes: MAX_HEADER_BYTES, signal });
  if (text === undefined) throw new AppError('invalid', `Backup is missing at "${OPTIMIZED_HEADER}"`);
  const { subvolumes } = await parseHeader(text);
  const strange = subvolumes.find(({ snapshot }) => snapshot !== '' && !index.snapshots.includes(snapshot));
  if (strange) throw new AppError('invalid', `The backup has no snapshot "${strange.snapshot}" that its header names`);
  return all.map((snapshot) => ({ snapshot, nested: nestedOf(subvolumes, snapshot ?? '') }));
}

/** Of one snapshot: the first is it itself. */
function nestedOf(subvolumes: readonly Subvolume[], snapshot: string): Expected['nested'] {
  const [whole, ...nested] = subvolumes.filter((one) => one.snapshot === snapshot);
  const paths = new Set(nested.map(({ path }) => path));
  if (whole?.path !== '/' || paths.has('/') || paths.size !== nested.length || nested.length > MAX_NESTED) {
    throw new AppError('invalid', `Backup is not valid: ${OPTIMIZED_HEADER} has other subvolumes than can be`);
  }
  return nested;
}

interface Subvolume {
  readonly path: string;
  readonly snapshot: string;
  readonly readonly: boolean;
}

const SCHEMA = {
  type: 'object',
  required: ['subvolumes'],
  properties: {
    subvolumes: {
      type: 'array',
      items: {
        type: 'object',
        required: ['path', 'snapshot', 'readonly'],
        properties: {
          path: { type: 'string', minLength: 1, maxLength: 4096 },
          snapshot: { type: 'string', maxLength: 255 },
          readonly: { type: 'boolean' },
        },
      },
    },
  },
};

let validate: ValidateFunction<{ readonly subvolumes: readonly Subvolume[] }> | undefined;

async function parseHeader(content: string): Promise<{ readonly subvolumes: readonly Subvolume[] }> {
  const { parse } = await import('yaml');
  let data: unknown;
  try {
    data = parse(content, { maxAliasCount: 0, schema: 'core' });
  } catch (cause) {
    throw new AppError('invalid', `Backup is not valid: ${OPTIMIZED_HEADER} is not YAML`, { cause });
  }
  validate ??= new Ajv({ strict: false }).compile(SCHEMA);
  if (validate(data)) return data;
  const [error] = validate.errors ?? [];
  const what = `${error?.instancePath ?? ''} ${error?.message ?? ''}`;
  throw new AppError('invalid', `Backup is not valid: ${OPTIMIZED_HEADER}${what}`);
}
