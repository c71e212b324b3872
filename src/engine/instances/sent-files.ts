// The index of a migration: what users wrote on the volumes of an instance and its snapshots, and what lies beside their roots, as streams
// have the roots alone.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Ajv, type ValidateFunction } from 'ajv';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { VolumeNotes } from '../db/root-volumes.ts';
import { parseIndex } from '../migration/volume-index.ts';
import type { NotesOfCopy } from './copy.ts';
import { ownNotes } from './foreign-notes.ts';
import type { InstanceFiles } from './staging.ts';
import type { ConfigMap } from '../types.ts';

/** In the index; LXD passes over it. */
export const FILES_KEY = 'lighter_files';

/** By snapshot; '' is the instance itself. */
export type SentFiles = Readonly<Record<string, InstanceFiles>>;

export async function readInstanceFiles(host: Host, directory: string): Promise<InstanceFiles> {
  const metadata = join(directory, 'metadata.yaml');
  const templates = join(directory, 'templates');
  const found = (await host.exists(templates)) ? await readdir(templates) : [];
  const texts = found.map(async (name) => [name, await host.readFile(join(templates, name))] as const);
  return {
    ...((await host.exists(metadata)) && { metadata: await host.readFile(metadata) }),
    templates: Object.fromEntries(await Promise.all(texts)),
  };
}

const text = { type: 'string', maxLength: 4 << 20 };
const note = {
  description: text,
  config: { type: ['object', 'null'], additionalProperties: text },
};
const SCHEMA = {
  type: 'object',
  properties: {
    config: {
      type: ['object', 'null'],
      properties: {
        volume: { type: ['object', 'null'], properties: note },
        volume_snapshots: {
          type: ['array', 'null'],
          items: { type: 'object', required: ['name'], properties: { name: text, ...note } },
        },
      },
    },
    [FILES_KEY]: {
      type: 'object',
      additionalProperties: {
        type: 'object',
        required: ['templates'],
        properties: {
          metadata: text,
          templates: {
            type: 'object',
            maxProperties: 1000,
            propertyNames: { pattern: '^[^/\\u0000]{1,255}$' },
            additionalProperties: text,
          },
        },
      },
    },
  },
};

interface SentNotes {
  readonly description?: string;
  readonly config?: ConfigMap | null;
}

interface Index {
  readonly config?: {
    readonly volume?: SentNotes | null;
    readonly volume_snapshots?: readonly (SentNotes & { readonly name: string })[] | null;
  } | null;
  readonly [FILES_KEY]?: SentFiles;
}

export interface SentIndex {
  /** Undefined: the source keeps them in the volumes. */
  readonly files: SentFiles | undefined;
  readonly notes: NotesOfCopy;
}

let validate: ValidateFunction<Index> | undefined;

/** AppError 'invalid' for what is no index. */
export function readSentIndex(document: Buffer): SentIndex {
  const data = parseIndex(document);
  validate ??= new Ajv({ strict: false }).compile(SCHEMA);
  if (!validate(data)) throw new AppError('invalid', 'The index of the migration is not valid');
  const { volume, volume_snapshots: snapshots } = data.config ?? {};
  const named = (snapshots ?? []).map((snapshot) => [snapshot.name, notesOf(snapshot)] as const);
  return { files: data[FILES_KEY], notes: { own: notesOf(volume ?? {}), snapshots: new Map(named) } };
}

function notesOf({ description = '', config }: SentNotes): VolumeNotes {
  return ownNotes({ description, config: config ?? {} });
}
