// lighter doctor: whether this machine can run containers, how many, and what to do about it.
import type { Command } from 'commander';
import { kindOf } from '#src/lib/errors.ts';
import type { ExamineOptions, Finding } from '#src/lib/finding.ts';
import type { Cli } from '../cli.ts';
import { formatOption } from '../resource.ts';
import { checkFormat, type Column, renderList } from '../table.ts';

const MARKS = { ok: 'ok', note: 'NOTE', bad: 'BAD' } as const;

const COLUMNS: readonly Column<Finding>[] = [
  { header: 'AREA', cell: ({ area }) => area },
  { header: 'WHAT', cell: ({ what }) => what },
  { header: 'STATE', cell: ({ state }) => MARKS[state] },
  {
    header: 'FOUND',
    cell: ({ found, containers }) => (containers === undefined ? found : `${found} (about ${containers} containers)`),
  },
  { header: 'WHAT TO DO', cell: ({ advice }) => advice },
];

export function addDoctorCommand(program: Command, cli: Cli): void {
  program
    .command('doctor')
    .description('Examine this machine: can it run containers, how many, what is in the way')
    .addOption(formatOption().default('compact'))
    .option('--fix', 'Raise the limits of the kernel that are lower than they should be, now and for the next boots')
    .addHelpText(
      'after',
      `
How many containers a limit allows is an estimate, for guests with systemd whose ids are those of the others
(security.idmap.isolated gives each its own count).
Ends with status 1 when something keeps containers from running at all.

Examples:
  lighter doctor
  lighter doctor --fix
  lighter doctor -f json`,
    )
    .action(async ({ fix = false, format: wanted }: { readonly fix?: boolean; readonly format: string }) => {
      const format = checkFormat(wanted);
      if (fix) await raise(cli);
      const findings = await (await cli.terminal.doctor()).examine(cli.signal, await engineSettings(cli));
      cli.terminal.out(renderList(findings, COLUMNS, format));
      if (format === 'table' || format === 'compact') cli.print(summary(findings));
      if (findings.some(({ state }) => state === 'bad')) cli.exitCode = 1;
    });
}

/** Of the engine on this machine. Where it does not run, or does not talk to us, the machine is examined without. */
async function engineSettings(cli: Cli): Promise<ExamineOptions> {
  try {
    const { config } = await (await cli.client('local')).server(cli.signal);
    const path = config?.['lighter.criu.path'];
    return typeof path === 'string' ? { criuPath: path } : {};
  } catch (error) {
    cli.signal.throwIfAborted();
    if (!['unavailable', 'forbidden'].includes(kindOf(error))) throw error;
    return {};
  }
}

async function raise(cli: Cli): Promise<void> {
  const { raised, file } = await (await cli.terminal.doctor()).raiseLimits();
  // not among the lines of a format that a program reads
  for (const { key, from, to } of raised) cli.terminal.err(`${key}: ${from} -> ${to}\n`);
  if (raised.length > 0) cli.terminal.err(`Written to ${file} for the next boots.\n`);
}

function summary(findings: readonly Finding[]): string {
  const bad = findings.filter(({ state }) => state === 'bad').map(({ what }) => what);
  if (bad.length > 0) return `Containers cannot run here: ${bad.join(', ')}.`;
  const [first] = findings
    .filter(({ containers }) => containers !== undefined)
    .toSorted((left, right) => (left.containers ?? 0) - (right.containers ?? 0));
  const notes = findings.filter(({ state }) => state === 'note').length;
  const limit =
    first?.containers === undefined
      ? ''
      : ` The first limit is met at about ${first.containers} containers (${first.what}).`;
  return `Containers can run here.${notes === 0 ? '' : ` ${notes} things could be better.`}${limit}`;
}
