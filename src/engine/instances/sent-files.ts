// What lies beside the roots of an instance and its snapshots, in the index of a migration by streams: streams have the roots alone.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Ajv, type ValidateFunction } from 'ajv';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { InstanceFiles } from './staging.ts';

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
const SCHEMA = {
  type: 'object',
  properties: {
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

let validate: ValidateFunction<{ readonly [FILES_KEY]?: SentFiles }> | undefined;

/** Undefined: the source keeps them in the volumes. AppError 'invalid' for what is no index. */
export function filesInIndex(document: Buffer): SentFiles | undefined {
  let data: unknown;
  try {
    data = JSON.parse(document.toString());
  } catch (cause) {
    throw new AppError('invalid', 'The index of the migration is not JSON', { cause });
  }
  validate ??= new Ajv({ strict: false }).compile(SCHEMA);
  if (!validate(data)) throw new AppError('invalid', 'The index of the migration is not valid');
  return data[FILES_KEY];
}
