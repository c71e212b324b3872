// Provider configuration files: inventory and traits that an operator adds to the provider (contract appendix E.8).
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Inventories } from './inventory.ts';
import type { Provider } from './provider-report.ts';

export interface ProviderAdditions {
  readonly inventories: Inventories;
  readonly traits: readonly string[];
}

interface InventoryYaml {
  readonly total: number;
  readonly reserved?: number;
  readonly min_unit?: number;
  readonly max_unit?: number;
  readonly step_size?: number;
  readonly allocation_ratio?: number;
}

interface ProviderYaml {
  readonly identification: { readonly name?: string; readonly uuid?: string };
  readonly inventories?: { readonly additional: readonly Readonly<Record<string, InventoryYaml>>[] };
  readonly traits?: { readonly additional: readonly string[] };
}

interface FileYaml {
  readonly meta: { readonly schema_version: string };
  readonly providers?: readonly ProviderYaml[];
}

const CUSTOM = '^CUSTOM_[A-Z0-9_]+$';
const count = { type: 'integer', minimum: 0 } as const;
const positive = { type: 'integer', minimum: 1 } as const;
const SCHEMA = {
  type: 'object',
  required: ['meta'],
  properties: {
    meta: { type: 'object', required: ['schema_version'], properties: { schema_version: { enum: ['1.0'] } } },
    providers: {
      type: 'array',
      items: {
        type: 'object',
        required: ['identification'],
        properties: {
          identification: {
            type: 'object',
            minProperties: 1,
            maxProperties: 1,
            additionalProperties: false,
            properties: { name: { type: 'string', minLength: 1 }, uuid: { type: 'string', minLength: 1 } },
          },
          inventories: {
            type: 'object',
            required: ['additional'],
            properties: {
              additional: {
                type: 'array',
                items: {
                  type: 'object',
                  propertyNames: { pattern: CUSTOM },
                  additionalProperties: {
                    type: 'object',
                    required: ['total'],
                    additionalProperties: false,
                    properties: {
                      total: count,
                      reserved: count,
                      min_unit: positive,
                      max_unit: positive,
                      step_size: positive,
                      allocation_ratio: { type: 'number', minimum: 0 },
                    },
                  },
                },
              },
            },
          },
          traits: {
            type: 'object',
            required: ['additional'],
            properties: { additional: { type: 'array', items: { type: 'string', pattern: CUSTOM } } },
          },
        },
      },
    },
  },
} as const;

/** What the files of the folder say about our provider. A file that cannot be used is an error: AppError 'invalid'. */
export async function readProviderAdditions(folder: string, own: Provider, log: Log): Promise<ProviderAdditions> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => /\.ya?ml$/.test(name)).sort();
  const found: ProviderYaml[] = [];
  for (const name of names) {
    const path = join(folder, name);
    for (const provider of (await readFileYaml(path)).providers ?? []) {
      if (isOwn(provider, own)) found.push(provider);
      else log.warn('provider configuration for another provider ignored', { path, of: provider.identification });
    }
  }
  if (found.length > 1) throw new AppError('invalid', `${folder}: provider ${own.name} is configured more than once`);
  return additionsOf(found[0]);
}

/** The libraries are loaded only where there are such files. */
async function readFileYaml(path: string): Promise<FileYaml> {
  const [{ parse }, { Ajv }] = await Promise.all([import('yaml'), import('ajv')]);
  let content: unknown;
  try {
    content = parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new AppError('invalid', `provider configuration ${path} cannot be read`, { cause: error });
  }
  const validate = new Ajv({ allErrors: true }).compile<FileYaml>(SCHEMA);
  if (validate(content)) return content;
  const complaints = (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
  throw new AppError('invalid', `provider configuration ${path}: ${complaints.join('; ')}`);
}

function isOwn({ identification: { name, uuid } }: ProviderYaml, own: Provider): boolean {
  return uuid === '$COMPUTE_NODE' || uuid === own.uuid || name === own.name;
}

function additionsOf(provider: ProviderYaml | undefined): ProviderAdditions {
  const inventories = Object.entries(Object.assign({}, ...(provider?.inventories?.additional ?? [])) as object);
  return {
    inventories: Object.fromEntries(inventories.map(([name, yaml]) => [name, toInventory(yaml as InventoryYaml)])),
    traits: provider?.traits?.additional ?? [],
  };
}

function toInventory(yaml: InventoryYaml): Inventories[string] {
  return {
    total: yaml.total,
    reserved: yaml.reserved ?? 0,
    minUnit: yaml.min_unit ?? 1,
    maxUnit: yaml.max_unit ?? yaml.total,
    stepSize: yaml.step_size ?? 1,
    allocationRatio: yaml.allocation_ratio ?? 1,
  };
}
