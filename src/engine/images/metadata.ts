// metadata.yaml of images: read with care, since anybody may have written it (lxd-engine-contract section 2.8).
import { AppError, messageOf } from '#src/lib/errors.ts';
import { parseForeignYaml } from '#src/lib/foreign-yaml.ts';
import type { ImageMetadata, ImageTemplate } from '../context.ts';

const ARCHITECTURE_ALIASES: Readonly<Record<string, string>> = {
  amd64: 'x86_64',
  i386: 'i686',
  i586: 'i686',
  arm64: 'aarch64',
  armhf: 'armv7l',
  powerpc64el: 'ppc64le',
  ppc64el: 'ppc64le',
};
const ARCHITECTURES: ReadonlySet<string> = new Set(
  'x86_64 i686 aarch64 armv8l armv7l armv6l ppc ppc64 ppc64le s390x mips mips64 riscv32 riscv64'.split(' '),
);

const READ_LIMIT_MS = 10_000;
const MAX_TEMPLATES = 1000;
const MAX_PATH_BYTES = 4095;

/** The kernel's name of an architecture; undefined for what is none. */
export function architectureName(name: string): string | undefined {
  const known = Object.hasOwn(ARCHITECTURE_ALIASES, name) ? ARCHITECTURE_ALIASES[name] : name;
  return known !== undefined && ARCHITECTURES.has(known) ? known : undefined;
}

/** YAML or JSON. AppError 'invalid' when it is not metadata of an image. */
export async function parseMetadata(text: string): Promise<ImageMetadata> {
  const data = await parseText(text);
  if (!isMap(data)) throw new AppError('invalid', 'Could not parse metadata.yaml: not a map');
  const architecture = architectureName(textOf(data['architecture']));
  if (architecture === undefined) {
    throw new AppError('invalid', `Invalid architecture "${textOf(data['architecture'])}" in metadata.yaml`);
  }
  return {
    architecture,
    creationDate: numberOf(data['creation_date']),
    expiryDate: numberOf(data['expiry_date']),
    properties: textMap(data['properties']),
    templates: templatesOf(data['templates']),
  };
}

/** The JSON and the YAML reader agree on documents that both know; the JSON one is much faster. */
async function parseText(text: string): Promise<unknown> {
  try {
    if (text.trimStart().startsWith('{')) return JSON.parse(text);
    return await parseForeignYaml(text, { maxAliasCount: 100, limitMs: READ_LIMIT_MS });
  } catch (error) {
    throw new AppError('invalid', `Could not parse metadata.yaml: ${messageOf(error)}`, { cause: error });
  }
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}

function numberOf(value: unknown): number {
  const number = Number(textOf(value));
  return Number.isFinite(number) ? number : 0;
}

function textMap(value: unknown): Readonly<Record<string, string>> {
  if (!isMap(value)) return {};
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, textOf(member)]));
}

function templatesOf(value: unknown): Readonly<Record<string, ImageTemplate>> {
  if (!isMap(value)) return {};
  const entries = Object.entries(value).filter((entry): entry is [string, Readonly<Record<string, unknown>>] => {
    return isMap(entry[1]);
  });
  if (entries.length > MAX_TEMPLATES) {
    throw new AppError('invalid', `metadata.yaml has ${entries.length} templates: more than ${MAX_TEMPLATES}`);
  }
  const unfit = entries.find(([path]) => path.includes('\0') || Buffer.byteLength(path) > MAX_PATH_BYTES);
  if (unfit) throw new AppError('invalid', `Invalid template path ${JSON.stringify(unfit[0].slice(0, 100))}`);
  return Object.fromEntries(entries.map(([path, template]) => [path, templateOf(template)]));
}

function templateOf(data: Readonly<Record<string, unknown>>): ImageTemplate {
  const template = textOf(data['template']);
  if (template === '' || /[/\0]/.test(template) || template.startsWith('.') || Buffer.byteLength(template) > 255) {
    throw new AppError('invalid', `Invalid template name ${JSON.stringify(template.slice(0, 300))} in metadata.yaml`);
  }
  return {
    when: Array.isArray(data['when']) ? data['when'].map(textOf) : [],
    createOnly: data['create_only'] === true,
    template,
    properties: textMap(data['properties']),
  };
}
