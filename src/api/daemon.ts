// lighterd put together: the engine, the routes on it, and the order in which they live.
import { dirname, join } from 'node:path';
import { deviceDrivers } from '#drivers/devices/registry.ts';
import { nicDrivers } from '#drivers/nic/registry.ts';
import { runtimeDrivers } from '#drivers/runtime/registry.ts';
import { networkDrivers } from '#drivers/network/registry.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { lockDirectory } from '#src/engine/db/directory-lock.ts';
import { createEngine, type Engine, type EngineOptions } from '#src/engine/engine.ts';
import { createEvents, type EventHub } from '#src/engine/events/events.ts';
import type { FirstPool } from '#src/engine/storage/first-pool.ts';
import { enginePaths } from '#src/engine/context.ts';
import { createInstances, type InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import { hostIdRange } from '#src/engine/instances/idmap.ts';
import { listed } from '#src/engine/server/config-keys.ts';
import type { ProxySettings } from '#src/engine/server/proxy.ts';
import type { Host } from '#src/host/host.ts';
import { unpackImage } from '#src/host/unpack/image.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Log, LogFields } from '#src/lib/log.ts';
import { runServices, type Service } from '#src/lib/service.ts';
import { callerFrom } from './callers.ts';
import { createApi } from './create-api.ts';
import { DevlxdServer } from './devlxd/devlxd-server.ts';
import { HttpServer } from './http-server.ts';
import { instanceRoutes } from './instances.ts';
import { registerRoutes } from './register-routes.ts';
import { Upgrades } from './upgrades.ts';

export interface DaemonOptions {
  /** $LIGHTER_DIR. */
  readonly root: string;
  readonly host: Host;
  /** Called first, with the directory locked: sees off what a killed daemon left running. */
  readonly seeOff: () => Promise<void>;
  readonly log: Log;
  readonly version: string;
  readonly proxies?: ProxySettings;
  /** Name of the group that may use the socket. */
  readonly group?: string;
  /** Driver of the pool that the first start makes; 'none': no pool. */
  readonly firstPoolDriver: string;
  /** Nothing may be configured by which a container gets the host's root. */
  readonly unprivilegedOnly?: boolean;
  /** Aborts when the host goes down: all instances are stopped, then the daemon ends. */
  readonly hostDown?: AbortSignal;
  /** Called once, when clients are served. */
  readonly onReady?: () => void;
}

/** What an image may unpack to: more than any root, less than what fills a node by mistake. */
const UNPACK_LIMITS = { maxBytes: 64 * 2 ** 30, maxEntries: 5_000_000 };
const VERSION_MS = 10_000;
/** setTimeout's limit; about 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Runs until `until` aborts; containers go on. AppError 'conflict' when another daemon has the directory. */
export async function runDaemon(options: DaemonOptions, until: AbortSignal): Promise<void> {
  const { root, host, group, firstPoolDriver } = options;
  const firstPool = firstPoolOf(firstPoolDriver);
  const socketGid = group === undefined ? undefined : await groupId(host, group);
  const databases = dirname(enginePaths(root).database);
  await host.makeDirectory(databases, { mode: 0o700 });
  using _lock = lockDirectory(join(databases, 'lock'));
  await options.seeOff();
  const events = createEvents();
  const log = publishing(options.log, events);
  const engine = await createEngine({ ...engineOptions(options, log), events, ...(firstPool && { firstPool }) });
  const ends = new Ends(until);
  options.hostDown?.addEventListener('abort', () => void ends.shutDown({ force: false }), { once: true });
  const server = createServer(engine, { log, ends, ...(socketGid !== undefined && { socketGid }) });
  log.info('starting', { root, version: options.version });
  const ready: Service = { name: 'ready', start: async () => options.onReady?.(), stop: async () => undefined };
  const services = [
    ...engine.services,
    new DevlxdServer(engine),
    server,
    hostShutdown(engine, ends),
    operationsEnd(engine, ends),
    ready,
  ];
  await runServices(services, { until: ends.signal, log });
  log.info(ends.stopsInstances ? 'stopped, with all instances' : 'stopped; containers go on', { root });
}

/** How the daemon ends: alone, or with all instances. */
class Ends {
  readonly #stop = new AbortController();
  readonly signal: AbortSignal;
  readonly #instancesStopped = Promise.withResolvers<void>();
  stopsInstances = false;
  force = false;

  constructor(until: AbortSignal) {
    this.signal = AbortSignal.any([until, this.#stop.signal]);
  }

  /** Resolves when the instances are stopped. */
  shutDown({ force }: { readonly force: boolean }): Promise<void> {
    this.stopsInstances = true;
    this.force ||= force;
    this.#stop.abort(new Error('shut down'));
    return this.#instancesStopped.promise;
  }

  markInstancesStopped(): void {
    this.#instancesStopped.resolve();
  }
}

/** Each instance has its own time to go; see boot.host_shutdown_timeout. */
function hostShutdown(engine: Engine<InstancesOfEngine>, ends: Ends): Service {
  const never = new AbortController();
  return {
    name: 'host shutdown',
    start: async () => undefined,
    async stop() {
      try {
        if (ends.stopsInstances) await engine.instances.stopAll(never.signal);
      } finally {
        ends.markInstancesStopped();
      }
    },
    graceMs: () => MAX_TIMER_MS,
  };
}

/** With `force` running operations are cancelled at once. */
function operationsEnd({ lastService }: Engine<InstancesOfEngine>, ends: Ends): Service {
  const graceMs = () => (ends.force ? 1 : (lastService.graceMs?.() ?? 1));
  return {
    name: lastService.name,
    start: (signal) => lastService.start(signal),
    stop: (signal) => lastService.stop(signal),
    graceMs,
  };
}

function engineOptions(
  { root, host, version, proxies, unprivilegedOnly = false }: DaemonOptions,
  log: Log,
): Omit<EngineOptions<InstancesOfEngine>, 'events'> {
  const runtime = runtimeDrivers.lxc.create({ host, log, containersPath: enginePaths(root).containers });
  return {
    root,
    host,
    log,
    version,
    ...(proxies && { proxies }),
    storageModules: storageDrivers,
    networkModules: networkDrivers,
    runtimeVersion: () => runtime.version(AbortSignal.timeout(VERSION_MS)),
    defaultIdMap: () => hostIdRange(host),
    unpack: async ({ files, directory, owners, signal, progress }) => {
      progress(0);
      const report = await unpackImage(host, files, { directory, owners }, { limits: UNPACK_LIMITS, signal });
      progress(100);
      log.info('image unpacked', { directory, ...report });
    },
    createInstances: (context) =>
      createInstances(context, {
        runtime: runtimeDrivers.lxc,
        nics: nicDrivers,
        devices: deviceDrivers,
        unprivilegedOnly,
      }),
  };
}

interface ServerParts {
  readonly log: Log;
  readonly ends: Ends;
  readonly socketGid?: number;
}

function createServer(engine: Engine<InstancesOfEngine>, { log, ends, socketGid }: ServerParts): HttpServer {
  const { config, serverCertificate } = engine;
  const proxied = new Map<string, string>();
  const callerOf = callerFrom(engine.context.database, {
    isPki: serverCertificate.ca !== undefined,
    trustsAuthority: () => config.flag('core.trust_ca_certificates'),
    proxied,
  });
  const closedBecause = () => (ends.signal.aborted ? 'LXD is shutting down' : undefined);
  const { projects } = engine.context.database;
  const projectExists = (name: string) => projects.find(name) !== undefined;
  const explain = (error: unknown) => engine.shortages.explain(error);
  const app = createApi({ log, callerOf, projectExists, config, closedBecause, explain });
  const upgrades = new Upgrades({ callerOf, log });
  registerRoutes(app, { engine, upgrades, instanceRoutes, shutdown: (how) => ends.shutDown(how) });
  const server = new HttpServer({
    app,
    upgrades,
    log,
    socketPath: engine.context.paths.socket,
    ...(socketGid !== undefined && { socketGid }),
    certificate: serverCertificate,
    address: config.listenAddress(),
    metricsAddress: config.metricsAddress(),
    trustedProxies: () => listed(config.text('core.https_trusted_proxy')),
    proxied,
  });
  config.onAddress((address) => server.setAddress(address));
  config.onMetricsAddress((address) => server.setMetricsAddress(address));
  return server;
}

function firstPoolOf(driver: string): FirstPool | undefined {
  if (driver === 'none') return undefined;
  if (!Object.hasOwn(storageDrivers, driver)) {
    const known = Object.keys(storageDrivers).join(', ');
    throw new AppError('invalid', `unknown storage driver "${driver}": use one of ${known}, or none`);
  }
  return { driver, config: {} };
}

async function groupId(host: Host, group: string): Promise<number> {
  const { stdout } = await host.run(['getent', 'group', group], { okExitCodes: [0, 2] });
  const gid = Number.parseInt(stdout.split(':')[2] ?? '', 10);
  if (Number.isNaN(gid)) throw new AppError('invalid', `no such group: ${group}`);
  return gid;
}

/** What is logged is also an event of type `logging` (lxc monitor). */
function publishing(log: Log, events: EventHub): Log {
  const both =
    (level: keyof Log) =>
    (message: string, fields: LogFields = {}) => {
      log[level](message, fields);
      const context = Object.entries(fields).map(([key, value]) => [
        key,
        value instanceof Error ? value.message : String(value),
      ]);
      events.publish('logging', { message, level, context: Object.fromEntries(context) });
    };
  return { debug: both('debug'), info: both('info'), warn: both('warn'), error: both('error') };
}
