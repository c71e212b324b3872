// lighter project: separate worlds of instances, images, profiles and volumes.
import type { Command } from 'commander';
import type { ProjectInfo, ProjectState } from '#src/client/wire.ts';
import { type Cli, keyValue, repeated } from '../cli.ts';
import { formatBytes } from '../format.ts';
import { PROJECT_KIND } from '../kinds.ts';
import {
  addDelete,
  addEdit,
  addKeys,
  addListing,
  addRename,
  addShow,
  formatOption,
  listOf,
  send,
  url,
} from '../resource.ts';
import { checkFormat, type Column, renderList } from '../table.ts';

interface Listed extends ProjectInfo {
  readonly isCurrent?: boolean;
}

interface Usage {
  readonly resource: string;
  readonly limit: number;
  readonly usage: number;
}

const USAGE_COLUMNS: readonly Column<Usage>[] = [
  { header: 'RESOURCE', cell: ({ resource }) => resource.toUpperCase() },
  {
    header: 'LIMIT',
    cell: ({ resource, limit }) => (limit < 0 ? 'UNLIMITED' : amount(resource, limit)),
  },
  { header: 'USAGE', cell: ({ resource, usage }) => amount(resource, usage) },
];

function amount(resource: string, value: number): string {
  return resource === 'memory' || resource === 'disk' ? formatBytes(value) : String(value);
}

function feature(header: string, key: string): Column<Listed> {
  return { header, cell: ({ config }) => (config[`features.${key}`] === 'true' ? 'YES' : 'NO') };
}

export function addProjectCommands(program: Command, cli: Cli): void {
  const project = program.command('project').description('Manage projects');
  addList(project, cli);
  addCreate(project, cli);
  addShow(project, cli, PROJECT_KIND);
  addEdit(project, cli, PROJECT_KIND);
  addKeys(project, cli, PROJECT_KIND);
  addRename(project, cli, PROJECT_KIND);
  addDelete(project, cli, PROJECT_KIND);
  addInfo(project, cli);
  addSwitch(project, cli);
}

function addList(project: Command, cli: Cli): void {
  addListing(project, cli, {
    description: 'List projects',
    columns: [
      { header: 'NAME', cell: ({ name, isCurrent }: Listed) => (isCurrent === true ? `${name} (current)` : name) },
      feature('IMAGES', 'images'),
      feature('PROFILES', 'profiles'),
      feature('STORAGE VOLUMES', 'storage.volumes'),
      feature('NETWORKS', 'networks'),
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
    ],
    load: async (client, _names, remote) => {
      const current = cli.projectOf(remote) ?? 'default';
      return (await listOf<ProjectInfo>(cli, client, '/1.0/projects')).map((info) =>
        info.name === current ? Object.defineProperty({ ...info }, 'isCurrent', { value: true }) : info,
      );
    },
    by: ({ name }) => name,
  });
}

function addCreate(project: Command, cli: Cli): void {
  project
    .command('create')
    .description('Create projects')
    .argument('<project>')
    .option('-c, --config <key=value>', 'Config key/value to apply to the new project; may be repeated', repeated)
    .addHelpText('after', '\nExample:\n  lighter project create team -c features.profiles=false -c limits.instances=10')
    .action(async (text: string, { config = [] }: { readonly config?: readonly string[] }) => {
      const { client, name } = await cli.at(text);
      const body = { name, config: Object.fromEntries(config.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: '/1.0/projects', body });
      cli.say(`Project ${name} created`);
    });
}

function addInfo(project: Command, cli: Cli): void {
  project
    .command('info')
    .description('Get a summary of resource allocations')
    .argument('<project>')
    .addOption(formatOption())
    .addHelpText('after', '\nExample:\n  lighter project info default')
    .action(async (text: string, options: { readonly format: string }) => {
      const format = checkFormat(options.format);
      const { client, name } = await cli.at(text);
      const { envelope } = await client.request('GET', `${url('projects', name)}/state`, { signal: cli.signal });
      const { resources } = envelope.metadata as ProjectState;
      const rows = Object.entries(resources).map(([resource, { Limit, Usage }]) => ({
        resource,
        limit: Limit,
        usage: Usage,
      }));
      rows.sort((a, b) => (a.resource < b.resource ? -1 : 1));
      cli.terminal.out(renderList(rows, USAGE_COLUMNS, format));
    });
}

function addSwitch(project: Command, cli: Cli): void {
  project
    .command('switch')
    .description('Switch the current project')
    .argument('<project>')
    .addHelpText('after', '\nExample:\n  lighter project switch team     --project asks for another one once')
    .action(async (text: string) => {
      const { client, name, remote } = await cli.at(text);
      await client.request('GET', url('projects', name), { signal: cli.signal });
      await cli.remotes.set(remote, { ...cli.remotes.get(remote), project: name });
    });
}
