// Start-up of the engine's daemon: options, environment, signals, exit code.
import { mkdirSync, readFileSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runDaemon } from '#src/api/daemon.ts';
import { parseBoolean } from '#src/engine/instances/values.ts';
import { proxyFromEnvironment } from '#src/engine/server/proxy.ts';
import { armFaults, faultStep, reportFault } from '#src/host/faults.ts';
import { commandMark, endLeftovers } from '#src/host/leftovers.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { raisePriority } from '#src/lib/priority.ts';
import { releaseUnusedPages } from '#src/host/resident-pages.ts';
import { messageOf } from '#src/lib/errors.ts';
import { createLog } from '#src/lib/log.ts';

const USAGE = `usage: lighterd [options]

  --group NAME      group that may use the socket (default: root alone)
  --storage DRIVER  driver of the pool that the first start makes: overlay (default), btrfs, dir, zfs, or none
  --unprivileged-only
                    refuse what gives a container the host's root (security.privileged, raw.idmap of root, lxc.idmap in raw.lxc)
  --logfile PATH    write the log there (default: standard error)
  --debug           log everything
  --version         print the version
  --help            print this

The state is kept in $LIGHTER_DIR (default: /var/lib/lighter). LXD_IDMAPPED_MOUNTS_DISABLE=1: files of containers are
given other owners, as on a kernel that cannot map the ids of a mount.
`;

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
  version: string;
};

function parseOptions() {
  return parseArgs({
    options: {
      group: { type: 'string' },
      storage: { type: 'string', default: 'overlay' },
      'unprivileged-only': { type: 'boolean', default: false },
      logfile: { type: 'string' },
      debug: { type: 'boolean', default: false },
      version: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      // Loads everything and leaves: the launcher fills the compile cache with it.
      warm: { type: 'boolean', default: false },
    },
  }).values;
}

/** For crash tests: a signal tells when the operation begins whose steps count. */
function armCrash(step: number): void {
  const die = (): void => void process.kill(process.pid, 'SIGKILL');
  const faults = armFaults({ step, die, report: reportFault });
  process.on('SIGUSR2', () => faults.begin());
}

async function main(options: ReturnType<typeof parseOptions>): Promise<void> {
  raisePriority();
  const { group, storage, logfile, debug, 'unprivileged-only': unprivilegedOnly } = options;
  const log = createLog({ level: debug ? 'debug' : 'info', ...(logfile !== undefined && { file: logfile }) });
  const end = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      // Who asks twice does not want to wait for operations any more.
      if (end.signal.aborted) process.exit(1);
      end.abort(new Error(`received ${signal}`));
    });
  }
  // What an init system sends when the host goes down.
  const hostDown = new AbortController();
  process.on('SIGPWR', () => hostDown.abort());
  process.on('uncaughtException', (error) => {
    log.error('uncaught exception', { error });
    process.exitCode = 1;
    end.abort(error);
  });
  const fault = process.env['LIGHTER_FAULT'];
  if (fault !== undefined) armCrash(faultStep(fault));
  // Files of the daemon are its own unless it says otherwise.
  process.umask(0o022);
  const root = resolve(process.env['LIGHTER_DIR'] ?? '/var/lib/lighter');
  // What start-up left on the heap would stay until it has doubled, and its code would stay resident.
  const onReady = () => {
    globalThis.gc?.();
    releaseUnusedPages().catch((error: unknown) => log.warn('could not give memory back', { error }));
  };
  const proxies = proxyFromEnvironment(process.env);
  mkdirSync(root, { recursive: true });
  const mark = commandMark(root);
  const host = new LinuxHost({ commandMark: mark, mapIds: !parseBoolean(process.env['LXD_IDMAPPED_MOUNTS_DISABLE']) });
  const seeOff = () => endLeftovers(mark, log);
  const daemon = { root, host, seeOff, log, version, proxies, firstPoolDriver: storage, unprivilegedOnly, onReady };
  await runDaemon({ ...daemon, hostDown: hostDown.signal, ...(group !== undefined && { group }) }, end.signal);
}

try {
  const options = parseOptions();
  if (options.help) process.stdout.write(USAGE);
  else if (options.version) process.stdout.write(`${version}\n`);
  else if (options.warm) flushCompileCache();
  else {
    await main(options);
    // Clients that keep a connection open must not keep the daemon.
    process.exit();
  }
} catch (error) {
  process.stderr.write(`lighterd: ${messageOf(error)}\n`);
  process.exit(1);
}
