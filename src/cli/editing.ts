// Objects as YAML: from standard input when that is no terminal, else in the user's editor, again after each mistake.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { ask } from './ask.ts';
import type { Cli } from './cli.ts';

interface Editing {
  /** What is there now. */
  readonly text: string;
  /** Of the temporary file; editors look at it. */
  readonly extension?: string;
  readonly apply: (text: string) => Promise<void>;
}

/** `apply` gets the new text; what it rejects with is shown and the editor opens again. */
export async function editText(cli: Cli, { text, extension = 'yaml', apply }: Editing): Promise<void> {
  if (!cli.terminal.screen.isInput) return apply(await cli.terminal.readInput());
  const folder = await mkdtemp(join(tmpdir(), 'lighter-edit-'));
  const file = join(folder, `content.${extension}`);
  try {
    await writeFile(file, text, { mode: 0o600 });
    for (;;) {
      await cli.terminal.edit(file);
      try {
        return await apply(await readFile(file, 'utf8'));
      } catch (error) {
        cli.terminal.err(`Error: ${messageOf(error)}\n`);
        await ask(cli, 'Press enter to open the editor again or ctrl+c to abort change ');
      }
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

type Fields = Readonly<Record<string, unknown>>;

/** The same for a map; only `fields` of it are handed on. */
export async function editFields(
  cli: Cli,
  {
    text,
    fields,
    apply,
  }: {
    readonly text: string;
    readonly fields: readonly string[];
    readonly apply: (value: Fields) => Promise<void>;
  },
): Promise<void> {
  await editText(cli, { text, apply: async (edited) => apply(pick(parseMap(edited), fields)) });
}

/** AppError 'invalid' for anything but a YAML map. */
export function parseMap(text: string): Fields {
  let value: unknown;
  try {
    value = withTexts(parse(text), parse(text, { schema: 'failsafe' }));
  } catch (error) {
    throw new AppError('invalid', `Not YAML: ${messageOf(error)}`, { cause: error });
  }
  if (value === null || value === undefined) return {};
  if (typeof value === 'object' && !Array.isArray(value)) return value as Fields;
  throw new AppError('invalid', 'Not a YAML map: expected "key: value" lines');
}

/** Their values are texts, whatever they look like: 2, true, 0644. */
const TEXTS = ['config', 'devices', 'properties'];

function withTexts(value: unknown, texts: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return {
    ...value,
    ...pick(
      texts as Fields,
      TEXTS.filter((field) => (value as Fields)[field] !== null),
    ),
  };
}

export function pick(value: Fields, fields: readonly string[]): Fields {
  return Object.fromEntries(fields.flatMap((field) => (field in value ? [[field, value[field]]] : [])));
}
