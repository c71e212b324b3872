// What all things with a configuration have in common: show, edit, get, set, unset, rename, delete.
import { type Command, Option } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { Method } from '#src/client/transport.ts';
import type { Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValues } from './cli.ts';
import { editFields, pick } from './editing.ts';
import { byNaturalName, formatYaml, sorted } from './format.ts';
import { checkFormat, type Column, renderList } from './table.ts';

type Fields = Readonly<Record<string, unknown>>;

/** One kind of thing of an engine. */
export interface Kind {
  /** As in "Show … configurations". */
  readonly noun: string;
  /** As in "… web deleted". */
  readonly title: string;
  /** The arguments that name one; the first may carry a remote. */
  readonly names: readonly string[];
  /** Of the API, from the names without the remote. */
  readonly path: (names: readonly string[]) => string;
  /** What can be changed. */
  readonly fields: readonly string[];
  /** What is shown, in this order. */
  readonly shown: readonly string[];
  /** A command line's names, for the examples. */
  readonly example: string;
  /** The words that lead to the command. */
  readonly group: string;
}

/** One thing of a kind on its engine. */
export interface Place {
  readonly client: EngineClient;
  readonly path: string;
  readonly names: readonly string[];
}

export async function place(cli: Cli, kind: Kind, words: readonly string[]): Promise<Place> {
  const [first = '', ...rest] = words.slice(0, kind.names.length);
  const { client, name } = await cli.at(first);
  if (name === '') throw new AppError('invalid', `Missing ${kind.noun} name`);
  const names = [name, ...rest];
  return { client, names, path: kind.path(names) };
}

/** The things of a path are named by their last part. */
export function url(...parts: readonly string[]): string {
  return `/1.0/${parts.map(encodeURIComponent).join('/')}`;
}

/** A request that may be answered with an operation, to its end. */
export async function send(
  cli: Cli,
  client: EngineClient,
  { method, path, body, etag }: { method: Method; path: string; body?: object; etag?: string | undefined },
): Promise<Operation | undefined> {
  const headers = etag === undefined ? {} : { 'If-Match': etag };
  const { envelope } = await client.request(method, path, { body, headers, signal: cli.signal });
  if (envelope.type !== 'async') return undefined;
  return client.operations.wait((envelope.metadata as Operation).id, cli.signal);
}

export async function read(
  cli: Cli,
  { client, path }: Pick<Place, 'client' | 'path'> & Partial<Place>,
): Promise<{ value: Fields; etag: string | undefined }> {
  const { envelope, headers } = await client.request('GET', path, { signal: cli.signal });
  return { value: envelope.metadata as Fields, etag: headers['etag'] };
}

/** Reads, changes and writes back; what somebody else changed meanwhile is not lost but an error. */
export async function change(cli: Cli, kind: Kind, where: Place, edit: (value: Fields) => Fields): Promise<void> {
  const { value, etag } = await read(cli, where);
  const body = pick({ ...value, ...edit(value) }, kind.fields);
  await send(cli, where.client, { method: 'PUT', path: where.path, body, etag });
}

/** The fields that are shown, maps in order. */
export function shownFields(kind: Pick<Kind, 'shown'>, value: Fields): Fields {
  const fields = Object.entries(pick(value, kind.shown));
  return Object.fromEntries(fields.map(([name, field]) => [name, isMap(field) ? sorted(field) : (field ?? [])]));
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function example(kind: Kind, verb: string, rest = ''): string {
  return `\nExample:\n  lighter ${kind.group} ${verb} ${kind.example}${rest}`;
}

function command(parent: Command, kind: Kind, verb: string, description: string): Command {
  const made = parent.command(verb).description(description);
  for (const name of kind.names) made.argument(name);
  return made;
}

/** The words of a command line without the options and the command that commander adds. */
function words(given: readonly unknown[]): readonly string[] {
  return given.slice(0, -2).flat() as readonly string[];
}

export function addShow(parent: Command, cli: Cli, kind: Kind): void {
  command(parent, kind, 'show', `Show ${kind.noun} configurations`)
    .addHelpText('after', example(kind, 'show'))
    .action(async (...given: readonly unknown[]) => {
      const { value } = await read(cli, await place(cli, kind, words(given)));
      cli.terminal.out(formatYaml(shownFields(kind, value)));
    });
}

export function addEdit(parent: Command, cli: Cli, kind: Kind): void {
  command(parent, kind, 'edit', `Edit ${kind.noun} configurations as YAML`)
    .addHelpText('after', `${example(kind, 'edit')}\n  lighter ${kind.group} edit ${kind.example} < new.yaml`)
    .action(async (...given: readonly unknown[]) => {
      const where = await place(cli, kind, words(given));
      const { value, etag } = await read(cli, where);
      await editFields(cli, {
        text: formatYaml(shownFields(kind, value)),
        fields: kind.fields,
        apply: async (body) => {
          await send(cli, where.client, { method: 'PUT', path: where.path, body, etag });
        },
      });
    });
}

function configOf({ config }: Fields): Readonly<Record<string, string>> {
  return (config ?? {}) as Readonly<Record<string, string>>;
}

/** New values of keys; an empty one removes the key. AppError 'not_found' for one to remove that is not there. */
export function withKeys(
  config: Readonly<Record<string, string>>,
  changes: Readonly<Record<string, string>>,
): Record<string, string> {
  const result: Record<string, string> = { ...config, ...changes };
  for (const [key, value] of Object.entries(changes)) {
    if (value !== '') continue;
    if (!(key in config)) throw new AppError('not_found', `Can't unset key '${key}', it's not currently set`);
    delete result[key];
  }
  return result;
}

/** A value of `-` is what comes on standard input. */
export async function givenValues(cli: Cli, pairs: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const entries = Object.entries(keyValues(pairs));
  return Object.fromEntries(
    await Promise.all(
      entries.map(async ([key, value]) => [key, value === '-' ? await cli.terminal.readInput() : value] as const),
    ),
  );
}

/** get, set and unset of the keys of `config`. */
export function addKeys(parent: Command, cli: Cli, kind: Kind): void {
  const count = kind.names.length;
  command(parent, kind, 'get', `Get values for ${kind.noun} configuration keys`)
    .argument('<key>')
    .action(async (...given: readonly unknown[]) => {
      const all = words(given);
      const { value } = await read(cli, await place(cli, kind, all));
      cli.print(configOf(value)[all[count] ?? ''] ?? '');
    });
  command(parent, kind, 'set', `Set ${kind.noun} configuration keys`)
    .argument('<key=value...>', 'or one key and one value; a value of - is read from standard input')
    .addHelpText('after', example(kind, 'set', ' user.note=mine'))
    .action(async (...given: readonly unknown[]) => {
      const all = words(given);
      const changes = await givenValues(cli, all.slice(count));
      const edit = (value: Fields): Fields => ({ config: withKeys(configOf(value), changes) });
      await change(cli, kind, await place(cli, kind, all), edit);
    });
  command(parent, kind, 'unset', `Unset ${kind.noun} configuration keys`)
    .argument('<key>')
    .action(async (...given: readonly unknown[]) => {
      const all = words(given);
      const edit = (value: Fields): Fields => ({ config: withKeys(configOf(value), { [all[count] ?? '']: '' }) });
      await change(cli, kind, await place(cli, kind, all), edit);
    });
}

export function addRename(parent: Command, cli: Cli, kind: Kind): void {
  command(parent, kind, 'rename', `Rename ${kind.noun}s`)
    .alias('mv')
    .argument('<new-name>')
    .action(async (...given: readonly unknown[]) => {
      const all = words(given);
      const { client, path, names } = await place(cli, kind, all);
      const name = all[kind.names.length] ?? '';
      await send(cli, client, { method: 'POST', path, body: { name } });
      cli.say(`${kind.title} ${names.at(-1)} renamed to ${name}`);
    });
}

export function addDelete(parent: Command, cli: Cli, kind: Kind, verb = 'delete'): void {
  command(parent, kind, verb, `${verb === 'delete' ? 'Delete' : 'Remove'} ${kind.noun}s`)
    .alias('rm')
    .action(async (...given: readonly unknown[]) => {
      const { client, path, names } = await place(cli, kind, words(given));
      await send(cli, client, { method: 'DELETE', path });
      cli.say(`${kind.title} ${names.at(-1)} deleted`);
    });
}

export function formatOption(): Option {
  return new Option('-f, --format <format>', 'Format (csv|json|table|yaml|compact)').default('table');
}

export interface Listing<T> {
  /** Of the command; `list` when absent. */
  readonly name?: string;
  readonly description: string;
  /** Absent: everything of a remote. */
  readonly kind?: Kind;
  readonly columns: readonly Column<T>[];
  readonly load: (client: EngineClient, names: readonly string[], remote: string) => Promise<readonly T[]>;
  readonly by: (item: T) => string;
}

export function addListing<T>(parent: Command, cli: Cli, listing: Listing<T>): void {
  const { name: verb = 'list', description, kind, columns, load, by } = listing;
  const made = parent.command(verb).description(description).addOption(formatOption());
  if (verb === 'list') made.alias('ls');
  for (const name of kind?.names ?? ['[remote:]']) made.argument(name);
  made.action(async (...given: readonly unknown[]) => {
    const format = checkFormat((given.at(-2) as { readonly format: string }).format);
    const [first = '', ...rest] = words(given).filter((word) => word !== undefined);
    const { client, name, remote } = await cli.at(first);
    if (kind === undefined && name !== '') {
      throw new AppError('invalid', `Expected the name of a remote with its colon, got "${first}"`);
    }
    const items = [...(await load(client, [name, ...rest], remote))];
    cli.terminal.out(
      renderList(
        items.sort((a, b) => byNaturalName(by(a), by(b))),
        columns,
        format,
      ),
    );
  });
}

/** Everything below a path of the API, as objects. */
export async function listOf<T>(cli: Cli, client: EngineClient, path: string): Promise<readonly T[]> {
  const { envelope } = await client.request('GET', path, { query: { recursion: 1 }, signal: cli.signal });
  return (envelope.metadata ?? []) as readonly T[];
}

/** `[remote:] [word…]`: the remote, empty when there is none, and the words. */
export function remoteFirst(given: readonly string[]): readonly [string, readonly string[]] {
  const [first = '', ...rest] = given;
  return /^[A-Za-z0-9._-]+:$/.test(first) ? [first, rest] : ['', given];
}
