// The options of config/nova-compute.schema.json as a table: the one truth about names, types and defaults.
import schemaJson from '#config/nova-compute.schema.json' with { type: 'json' };

export type OptionType = 'string' | 'integer' | 'number' | 'boolean' | 'array';
export type OptionValue = string | number | boolean | null | readonly (string | number)[];

export interface OptionSpec {
  readonly type: OptionType;
  readonly itemType: OptionType;
  readonly nullable: boolean;
  /** Given more than once: all values count. */
  readonly multi: boolean;
  readonly secret: boolean;
  readonly aliases: readonly string[];
  readonly default: OptionValue;
  readonly description: string;
}

export interface SectionSpec {
  /** Options that are not in the table are refused. */
  readonly closed: boolean;
  readonly options: ReadonlyMap<string, OptionSpec>;
}

interface OptionJson {
  readonly type: string | readonly string[];
  readonly items?: { readonly type: string };
  readonly default: OptionValue;
  readonly description: string;
  readonly multi?: boolean;
  readonly secret?: boolean;
  readonly aliases?: readonly string[];
}

interface SectionJson {
  readonly properties: Readonly<Record<string, OptionJson>>;
  readonly additionalProperties: boolean;
  readonly allOf?: readonly { readonly $ref: string }[];
}

export const computeSchema = schemaJson;

const definitions: Readonly<Record<string, Pick<SectionJson, 'properties'>>> = schemaJson.definitions;
const sections: Readonly<Record<string, SectionJson>> = schemaJson.properties;

/** All sections and options that the compute reads. */
export const computeOptions: ReadonlyMap<string, SectionSpec> = new Map(
  Object.entries(sections).map(([name, section]) => [name, sectionSpec(section)]),
);

function sectionSpec({ properties, additionalProperties, allOf = [] }: SectionJson): SectionSpec {
  const shared = allOf.map(({ $ref }) => definitions[$ref.split('/').at(-1) ?? '']?.properties ?? {});
  const all = [...shared, properties].flatMap((group) => Object.entries(group));
  return { closed: !additionalProperties, options: new Map(all.map(([name, json]) => [name, optionSpec(json)])) };
}

function optionSpec({ type, items, multi = false, secret = false, aliases = [], ...rest }: OptionJson): OptionSpec {
  const types = typeof type === 'string' ? [type] : type;
  return {
    type: (types[0] ?? 'string') as OptionType,
    itemType: (items?.type ?? 'string') as OptionType,
    nullable: types.includes('null'),
    multi,
    secret,
    aliases,
    default: rest.default,
    description: rest.description,
  };
}
