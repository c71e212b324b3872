// lighter list.
import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { byNaturalName } from '../format.ts';
import { formatOption, remoteFirst } from '../resource.ts';
import { customColumn, INSTANCE_COLUMNS } from '../instance-columns.ts';
import { filterInstances } from '../instance-filter.ts';
import { checkFormat, chooseColumns, renderList } from '../table.ts';

const DEFAULT_COLUMNS = 'ns46tS';
const FAST_COLUMNS = 'nsacPt';

const HELP = `
Filters:
  web                     name begins with "web"
  '.*db[0-9]+'            name matches the regular expression
  user.owner=alice        configuration; u.owner=alice does as well
  status=running,frozen   also type=, architecture=, location=
  ipv4=10.0.0.0/24        an address or a network; ipv6= as well
  Several filters must all be satisfied.

Columns (-c):
${Object.entries(INSTANCE_COLUMNS)
  .map(([letter, { header }]) => `  ${letter} - ${header.toLowerCase()}`)
  .join('\n')}
  [config:|devices:]key[:HEADER[:MAXWIDTH]] - any configuration or device key

Examples:
  lighter list -c ns4,user.nova.name:SERVER
  lighter list status=running -f json`;

interface ListOptions {
  readonly columns?: string;
  readonly format: string;
  readonly fast?: boolean;
  readonly allProjects?: boolean;
}

export function addListCommand(program: Command, cli: Cli): void {
  program
    .command('list')
    .alias('ls')
    .description('List instances')
    .usage('[options] [remote:] [filter...]')
    .argument('[filter...]')
    .option('-c, --columns <columns>', `Columns (default: "${DEFAULT_COLUMNS}")`)
    .addOption(formatOption())
    .option('--all-projects', 'Display instances from all projects')
    .option('--fast', `Fast mode (same as --columns=${FAST_COLUMNS})`)
    .addHelpText('after', HELP)
    .action(async (words: readonly string[], options: ListOptions) => {
      const [remote, filters] = remoteFirst(words);
      const { client } = await cli.at(remote);
      const format = checkFormat(options.format);
      const { allProjects = false } = options;
      const wanted = options.fast ? FAST_COLUMNS : (options.columns ?? DEFAULT_COLUMNS);
      const isOwnChoice = options.fast === true || options.columns !== undefined;
      const columns = chooseColumns(
        allProjects && !isOwnChoice ? `e${wanted}` : wanted,
        INSTANCE_COLUMNS,
        customColumn,
      );
      const instances = filterInstances(await client.instances.listFull({ allProjects, signal: cli.signal }), filters);
      const ordered = [...instances].sort((a, b) => byNaturalName(a.name, b.name));
      cli.terminal.out(renderList(ordered, columns, format));
    });
}
