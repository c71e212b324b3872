// lighter config: keys of an instance, or of the engine when none is named.
import type { Command } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { editFields } from '../editing.ts';
import { formatYaml, sorted } from '../format.ts';
import { INSTANCE_KIND, SNAPSHOT_KIND } from '../kinds.ts';
import { change, givenValues, type Kind, type Place, read, send, shownFields, withKeys } from '../resource.ts';
import { addDeviceCommands } from './devices.ts';
import { addMetadataCommands } from './metadata.ts';
import { addTrustCommands } from './trust.ts';

type Values = Readonly<Record<string, string>>;

export function addConfigCommands(program: Command, cli: Cli): void {
  const config = program.command('config').description('Manage instance and engine configuration options');
  addGet(config, cli);
  addChanges(config, cli);
  addShow(config, cli);
  addEdit(config, cli);
  addDeviceCommands(config, cli, INSTANCE_KIND);
  addMetadataCommands(config, cli);
  addTrustCommands(config, cli);
}

function addGet(config: Command, cli: Cli): void {
  config
    .command('get')
    .description('Get the value of an instance or engine configuration key')
    .usage('[options] [instance] <key>')
    .argument('<key...>', 'without an instance: of the engine')
    .option('-e, --expanded', 'Access the expanded configuration')
    .addHelpText('after', '\nExamples:\n  lighter config get web limits.cpu\n  lighter config get core.https_address')
    .action(async (words: readonly string[], options: { expanded?: boolean }) => {
      const { target, rest } = split(words);
      if (rest.length !== 1) throw new AppError('invalid', 'Invalid number of arguments');
      cli.print(await valueOf(cli, target, rest[0] ?? '', options.expanded === true));
    });
}

function addChanges(config: Command, cli: Cli): void {
  config
    .command('set')
    .description('Set instance or engine configuration keys')
    .usage('[options] [instance] <key=value>...')
    .argument('<key=value...>', 'or one key and one value; a value of - is read from standard input')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter config set web limits.cpu=2 user.owner=alice\n  lighter config set images.auto_update_interval=12\n  lighter config set web cloud-init.user-data - < cloud.yaml',
    )
    .action(async (words: readonly string[]) => {
      const { target, rest } = split(words);
      await update(cli, target, await givenValues(cli, rest));
    });
  config
    .command('unset')
    .description('Unset an instance or engine configuration key')
    .usage('[options] [instance] <key>')
    .argument('<key...>', 'without an instance: of the engine')
    .addHelpText('after', '\nExample:\n  lighter config unset web limits.cpu')
    .action(async (words: readonly string[]) => {
      const { target, rest } = split(words);
      if (rest.length !== 1) throw new AppError('invalid', 'Invalid number of arguments');
      await update(cli, target, { [rest[0] ?? '']: '' });
    });
}

function addShow(config: Command, cli: Cli): void {
  config
    .command('show')
    .description('Show instance or engine configurations')
    .argument('[instance[/snapshot]]', 'absent: the engine')
    .option('-e, --expanded', 'Show the expanded configuration')
    .addHelpText('after', '\nExamples:\n  lighter config show\n  lighter config show web --expanded')
    .action(async (text: string | undefined, options: { expanded?: boolean }) => {
      const found = await locate(cli, text ?? '');
      if (!found.kind) {
        cli.terminal.out(formatYaml({ config: sorted(await engineConfig(cli, found.client)) }));
        return;
      }
      const { value } = await read(cli, found);
      const { expanded_config: config, expanded_devices: devices } = value;
      const expanded = options.expanded === true ? { config, devices } : {};
      cli.terminal.out(formatYaml(shownFields(found.kind, { ...value, ...expanded })));
    });
}

function addEdit(config: Command, cli: Cli): void {
  config
    .command('edit')
    .description('Edit instance or engine configurations as YAML')
    .argument('[instance[/snapshot]]', 'absent: the engine')
    .addHelpText('after', '\nExamples:\n  lighter config edit web\n  lighter config edit web < web.yaml')
    .action(async (text: string | undefined) => {
      const { client, path, kind } = await locate(cli, text ?? '');
      const { value, etag } = await read(cli, { client, path, names: [] });
      const shown = kind ? shownFields(kind, value) : { config: sorted((value['config'] ?? {}) as Values) };
      await editFields(cli, {
        text: formatYaml(shown),
        fields: kind?.fields ?? ['config'],
        apply: async (body) => {
          await send(cli, client, { method: 'PUT', path, body, etag });
        },
      });
    });
}

/** An instance, one of its snapshots, or (without a kind) the engine. */
async function locate(cli: Cli, text: string): Promise<Place & { readonly kind: Kind | undefined }> {
  const { client, name } = await cli.at(text);
  if (name === '') return { client, path: '/1.0', names: [], kind: undefined };
  const names = name.split('/');
  const kind = names.length > 1 ? SNAPSHOT_KIND : INSTANCE_KIND;
  return { client, names, kind, path: kind.path(names) };
}

interface Words {
  /** Of `locate`. */
  readonly target: string;
  readonly rest: readonly string[];
}

/** Keys of the engine have a dot, and names of instances never do. */
function split(words: readonly string[]): Words {
  const [first = ''] = words;
  const isTarget = words.length > 1 && (first.endsWith(':') || !/[.=]/.test(first.replace(/^[^:]*:/, '')));
  return isTarget ? { target: first, rest: words.slice(1) } : { target: '', rest: words };
}

async function engineConfig(cli: Cli, client: EngineClient): Promise<Readonly<Record<string, unknown>>> {
  return (await client.server(cli.signal)).config ?? {};
}

async function valueOf(cli: Cli, target: string, key: string, expanded: boolean): Promise<string> {
  const { client, name } = await cli.at(target);
  if (name === '') {
    const value = (await engineConfig(cli, client))[key];
    return value === undefined || typeof value === 'string' ? (value ?? '') : JSON.stringify(value);
  }
  const { config, expanded_config } = await client.instances.get(name, cli.signal);
  return (expanded ? (expanded_config ?? config) : config)[key] ?? '';
}

/** An empty value removes the key. */
async function update(cli: Cli, target: string, changes: Values): Promise<void> {
  const where = await locate(cli, target);
  if (where.kind) {
    const edit = ({ config }: Readonly<Record<string, unknown>>) => ({ config: withKeys(config as Values, changes) });
    return change(cli, where.kind, where, edit);
  }
  // The engine forgets a key of its own that is set to nothing.
  await send(cli, where.client, { method: 'PATCH', path: where.path, body: { config: changes } });
}
