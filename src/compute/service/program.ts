// The program nova-compute-lxd, apart from the process it runs in: what bin/nova-compute-lxd.ts calls.
import { createSocket } from 'node:dgram';
import { readFile } from 'node:fs/promises';
import { messageOf } from '#src/lib/errors.ts';
import { type AdjustableLog, createLog } from '#src/lib/log.ts';
import { runServices } from '#src/lib/service.ts';
import type { ComputeConfig } from '../config/config.ts';
import { type ConfigMachine, loadComputeConfig } from '../config/load.ts';
import { checkCompute } from './check.ts';
import { type CommandLine, HELP, parseCommandLine } from './command-line.ts';
import { createServices } from './connect.ts';

/** The process, as far as the program needs it. */
export interface ProgramWorld {
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly hostname: string;
  readonly homeFolder: string;
  readonly tempFolder: string;
  readonly print: (line: string) => void;
  readonly complain: (line: string) => void;
  /** Aborts when the process is asked to end. */
  readonly until: AbortSignal;
  /** SIGHUP. */
  readonly onReload: (listener: () => void) => void;
}

/** As long as a timer can be. */
const NO_LIMIT_MS = 2 ** 31 - 1;

/** Returns the exit code. */
export async function runProgram(world: ProgramWorld): Promise<number> {
  try {
    const command = parseCommandLine(world.args);
    return await ACTIONS[command.action](world, command);
  } catch (error) {
    world.complain(`nova-compute-lxd: ${messageOf(error)}`);
    return 1;
  }
}

const ACTIONS: Readonly<Record<CommandLine['action'], (world: ProgramWorld, command: CommandLine) => Promise<number>>> =
  {
    async help({ print }) {
      print(HELP.trimEnd());
      return 0;
    },
    async version({ print }) {
      const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
      print((JSON.parse(text) as { readonly version: string }).version);
      return 0;
    },
    async check(world, command) {
      const isGood = await checkCompute(await configOf(world, command), world.print);
      world.print(isGood ? 'nova-compute-lxd could start' : 'nova-compute-lxd could not start');
      return isGood ? 0 : 1;
    },
    async run(world, command) {
      const config = await configOf(world, command);
      const { file } = config.log;
      const log = createLog({ level: levelOf(config), ...(file !== undefined && { file }) });
      world.onReload(() => void reload(world, command, log));
      try {
        const service = await createServices(config, log);
        const graceMs = config.service.gracefulShutdownTimeoutMs || NO_LIMIT_MS;
        await runServices([service], { until: world.until, log, graceMs });
        return 0;
      } catch (error) {
        log.error('cannot run', { error });
        return 1;
      }
    },
  };

async function configOf(world: ProgramWorld, { sources, overrides }: CommandLine): Promise<ComputeConfig> {
  const given = Object.entries(overrides).map(([name, value]) => [`OS_DEFAULT__${name.toUpperCase()}`, value]);
  const machine: ConfigMachine = {
    // the command line wins over everything
    environment: { ...world.environment, ...Object.fromEntries(given) },
    hostname: world.hostname,
    address: await primaryAddress(),
    homeFolder: world.homeFolder,
    tempFolder: world.tempFolder,
  };
  return await loadComputeConfig(sources, machine);
}

function levelOf({ log }: ComputeConfig): 'debug' | 'info' {
  return log.debug ? 'debug' : 'info';
}

/** Of all options only the level of the log can change while the program runs. */
async function reload(world: ProgramWorld, command: CommandLine, log: AdjustableLog): Promise<void> {
  try {
    log.level = levelOf(await configOf(world, command));
    log.info('configuration read again', { logLevel: log.level });
  } catch (error) {
    log.error('configuration not read again', { error });
  }
}

/** The address of the interface with the default route; nothing is sent. */
async function primaryAddress(): Promise<string> {
  const socket = createSocket('udp4');
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.connect(80, '192.0.2.1', () => resolve());
    });
    return socket.address().address;
  } catch {
    // no route at all: a machine that reaches only itself
    return '127.0.0.1';
  } finally {
    socket.close();
  }
}
