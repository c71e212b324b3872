// lighter init --preseed, --auto, --dump: the engine itself, as `lxd init` sets it up.
import { Option, type Command } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { formatYaml } from '../format.ts';
import { applyPreseed } from '../preseed/apply.ts';
import { type AutoOptions, autoPreseed } from '../preseed/auto.ts';
import { readPreseed } from '../preseed/document.ts';
import { dumpPreseed } from '../preseed/dump.ts';

export interface PreseedOptions extends AutoOptions {
  readonly auto?: boolean;
  readonly dump?: boolean;
  readonly preseed?: boolean;
}

const AUTO_ONLY = ['networkAddress', 'networkPort', 'storageBackend', 'storagePool', 'trustPassword'] as const;

export function addPreseedOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--preseed', 'Set up the engine: YAML on standard input, as for lxd init').conflicts(['auto', 'dump']),
    )
    .addOption(new Option('--auto', 'Set up the engine: a pool, a network and the default profile').conflicts('dump'))
    .option('--dump', 'Print how the engine is set up, as YAML for --preseed')
    .option('--network-address <address>', 'Address the engine listens on; "all" for every one (with --auto)')
    .option('--network-port <port>', 'Port the engine listens on (with --auto; default 8443)')
    .option('--storage-backend <driver>', 'Driver of the pool (with --auto)')
    .option('--storage-pool <source>', 'Existing pool, dataset, device or file to use (with --auto)')
    .option('--trust-password <password>', 'Password with which new clients are trusted (with --auto)');
}

/** True when the engine was what the command was about, not an instance. AppError 'invalid' for what does not go together. */
export async function setUpEngine(
  cli: Cli,
  words: readonly (string | undefined)[],
  options: PreseedOptions,
): Promise<boolean> {
  const isAuto = options.auto === true;
  const alone = AUTO_ONLY.find((name) => options[name] !== undefined);
  if (!isAuto && alone !== undefined) throw new AppError('invalid', `--${dashed(alone)} needs --auto`);
  if (options.dump === true) await dump(cli, remoteOf(cli, words));
  else if (isAuto) await setUpAlone(cli, remoteOf(cli, words), options);
  else if (options.preseed === true) await setUpAsTold(cli, remoteOf(cli, words));
  else return false;
  return true;
}

async function dump(cli: Cli, remote: string): Promise<void> {
  cli.terminal.out(formatYaml(await dumpPreseed(cli, await cli.client(remote))));
}

async function setUpAlone(cli: Cli, remote: string, options: AutoOptions): Promise<void> {
  await applyPreseed(cli, remote, await autoPreseed(cli, await cli.client(remote), options));
}

async function setUpAsTold(cli: Cli, remote: string): Promise<void> {
  await applyPreseed(cli, remote, readPreseed(await cli.terminal.readInput()));
}

function remoteOf(cli: Cli, words: readonly (string | undefined)[]): string {
  const given = words.filter((word) => word !== undefined);
  const { remote, name } = cli.split(given[0] ?? '');
  if (name === '' && given.length <= 1) return remote;
  throw new AppError(
    'invalid',
    `"${given.join(' ')}": --preseed, --auto and --dump set up the engine, and take no image`,
  );
}

function dashed(name: string): string {
  return name.replace(/[A-Z]/gu, (letter) => `-${letter.toLowerCase()}`);
}
