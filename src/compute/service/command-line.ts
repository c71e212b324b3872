// The command line of nova-compute-lxd: nova-compute's own options, and a check that starts nothing.
import { parseArgs } from 'node:util';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { ConfigSource } from '../config/load.ts';

export interface CommandLine {
  readonly action: 'run' | 'check' | 'version' | 'help';
  readonly sources: readonly ConfigSource[];
  /** Overrides of [DEFAULT], as if they stood in the last file. */
  readonly overrides: Readonly<Record<string, string>>;
}

export const HELP = `nova-compute-lxd: a nova-compute that runs system containers on an LXD engine.

It takes the place of nova-compute on a node; the rest of OpenStack (Zed to 2026.2) stays as it is.

  nova-compute-lxd [--config-file FILE]... [--config-dir FOLDER]...   run in the foreground
  nova-compute-lxd --check [the same options]   say line by line whether it could start, and why not

Options
  --config-file FILE   nova.conf; may be given several times, later files win
  --config-dir FOLDER  all *.conf in it, in order of their names
                       Without both: the first nova.conf and nova-compute.conf, and the folders of these names with
                       .d, of ~/.nova, ~, /etc/nova, /etc
  -d, --debug          log at level debug
  --log-file FILE      write the log there instead of standard error
  --check              check configuration, message broker, conductor, Keystone, Placement, Neutron, Glance and the
                       engine; exit code 0 when it could start, 1 when not. Changes nothing.
  --version, -h, --help

Configuration
  The nova.conf of an ordinary compute node is read as it is. Add what the engine needs:

    [DEFAULT]
    compute_driver = lxd
    [lxd]
    endpoint = unix:///var/lib/lighter/unix.socket

  https://HOST:8443 with client_cert, client_key and server_cert reaches a remote engine, LXD or Incus.
  The environment is read, too: OS_LXD__ENDPOINT sets endpoint of [lxd] and wins over files.
  config/nova-compute.schema.json describes every option.

State and signals
  The only state is the file compute_id in state_path (or beside nova.conf): who this node is. Keep it.
  SIGTERM and SIGINT end it after running operations are done; a second one ends it at once. SIGHUP reads the log
  level again. Containers run on whatever happens to this program.
`;

/** Throws AppError 'invalid' with what is wrong. */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const { tokens } = parse(args);
  const sources: ConfigSource[] = [];
  const overrides: Record<string, string> = {};
  let action: CommandLine['action'] = 'run';
  for (const token of tokens) {
    if (token.kind === 'positional') throw new AppError('invalid', `unexpected argument ${token.value}; see --help`);
    if (token.kind !== 'option') continue;
    const { name, value = '' } = token;
    if (name === 'config-file') sources.push({ kind: 'file', path: value });
    else if (name === 'config-dir') sources.push({ kind: 'folder', path: value });
    else if (name === 'log-file') overrides['log_file'] = value;
    else if (name === 'debug') overrides['debug'] = 'true';
    else action = name as CommandLine['action'];
  }
  return { action, sources, overrides };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      tokens: true,
      strict: true,
      allowPositionals: true,
      options: {
        'config-file': { type: 'string', multiple: true },
        'config-dir': { type: 'string', multiple: true },
        'log-file': { type: 'string' },
        debug: { type: 'boolean', short: 'd' },
        check: { type: 'boolean' },
        version: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw new AppError('invalid', `${messageOf(error)}; see --help`, { cause: error });
  }
}
