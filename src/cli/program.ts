// The command line: global flags, commands, and errors as exit codes.
import { Command, CommanderError } from 'commander';
import { EngineError } from '#src/client/errors.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { expandAlias } from './aliases.ts';
import { Cli } from './cli.ts';
import { addAliasGroup } from './commands/aliases.ts';
import { addBackupCommands } from './commands/backups.ts';
import { addConfigCommands } from './commands/config.ts';
import { addConsoleCommand } from './commands/console.ts';
import { addCopyCommands } from './commands/copies.ts';
import { addCreateCommands } from './commands/create.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addExecCommand } from './commands/exec.ts';
import { addFileCommands } from './commands/files.ts';
import { addImageCommands } from './commands/images.ts';
import { addListCommand } from './commands/list.ts';
import { addNetworkCommands } from './commands/network/networks.ts';
import { addMonitorCommand } from './commands/monitor.ts';
import { addOperationCommands } from './commands/operations.ts';
import { addProfileCommands } from './commands/profiles.ts';
import { addProjectCommands } from './commands/projects.ts';
import { addPublishCommand } from './commands/publish.ts';
import { addQueryCommand } from './commands/query.ts';
import { addRemoteCommands } from './commands/remotes.ts';
import { addServerCommands } from './commands/server.ts';
import { addSnapshotCommands } from './commands/snapshots.ts';
import { addStateCommands } from './commands/state.ts';
import { addStorageCommands } from './commands/storage.ts';
import { addWarningCommands } from './commands/warnings.ts';
import { Remotes } from './remotes.ts';
import type { Terminal } from './terminal.ts';

const HELP = `
Names of commands and flags are those of lxc; what you know of lxc works here.

First steps:
  lighter image import rootfs-with-metadata.tar.xz --alias debian
  lighter launch debian web
  lighter list
  lighter console --show-log web
  lighter delete --force web

The engine is found at $LIGHTER_DIR/unix.socket (default /var/lib/lighter/unix.socket).`;

const ADDERS = [
  addServerCommands,
  addListCommand,
  addCreateCommands,
  addStateCommands,
  addExecCommand,
  addFileCommands,
  addSnapshotCommands,
  addCopyCommands,
  addConfigCommands,
  addConsoleCommand,
  addImageCommands,
  addPublishCommand,
  addProfileCommands,
  addProjectCommands,
  addStorageCommands,
  addBackupCommands,
  addNetworkCommands,
  addMonitorCommand,
  addOperationCommands,
  addWarningCommands,
  addQueryCommand,
  addRemoteCommands,
  addAliasGroup,
  addDoctorCommand,
];

/** Runs one command line (without the program's name) and returns the exit code. */
export async function runCli(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    using cli = new Cli(terminal, await Remotes.load(terminal.configDirectory));
    await createProgram(cli).parseAsync(expandAlias(argv, cli.remotes.aliases), { from: 'user' });
    return cli.exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    terminal.err(`Error: ${explain(error)}\n`);
    return 1;
  }
}

function createProgram(cli: Cli): Command {
  const program = new Command('lighter')
    .description(
      'Command line client of lighterd, the engine of Lightervisor, and of anything else that speaks the REST API of LXD',
    )
    .version(cli.terminal.version, '--version', 'Print version number')
    .option('--project <name>', 'Project of the engine')
    .option('--force-local', 'Use the engine of this machine, whatever the default remote is')
    .option('-q, --quiet', "Don't show progress information")
    .addHelpText('after', HELP)
    .hook('preAction', (_program, command) => cli.configure(command.optsWithGlobals()));
  for (const add of ADDERS) add(program, cli);
  forAll(program, (command) => {
    command.exitOverride().showHelpAfterError('(add --help for what it takes)').helpOption('-h, --help', 'Print help');
    command.configureOutput({ writeOut: cli.terminal.out, writeErr: cli.terminal.err });
    command.configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'Error: ')) });
  });
  return program;
}

function forAll(command: Command, change: (command: Command) => void): void {
  change(command);
  for (const child of command.commands) forAll(child, change);
}

/** The engine's own words where it gave some. */
function explain(error: unknown): string {
  if (error instanceof EngineError) return error.reply;
  if (error instanceof AppError && error.kind === 'unavailable') {
    return `${error.message}\nIs the engine running? LIGHTER_DIR says where it is.`;
  }
  return messageOf(error);
}
