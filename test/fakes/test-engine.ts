// An engine on a directory of its own, with storage in memory and no runtime: for tests of the parts above the drivers.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { callerFrom } from '#src/api/callers.ts';
import { createApi } from '#src/api/create-api.ts';
import { registerRoutes } from '#src/api/register-routes.ts';
import { Upgrades } from '#src/api/upgrades.ts';
import type { ApiApp, Caller } from '#src/api/app.ts';
import { createEngine, type Engine } from '#src/engine/engine.ts';
import { createEvents } from '#src/engine/events/events.ts';
import type { ConfigMap, InstancesPart, ReadableRoot, ReadRoot } from '#src/engine/types.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { AppError } from '#src/lib/errors.ts';
import { silentLog } from '#src/lib/log.ts';
import { MemoryStorage } from './memory-storage.ts';

/** Instances that know two rules, remember what was applied, and never run. */
export class FakeInstances implements InstancesPart {
  readonly isRunning = (): boolean => false;
  started = true;
  readonly haveStarted = (): boolean => this.started;
  readonly service = { name: 'instances', start: async () => undefined, stop: async () => undefined };
  /** Profiles that were applied, in order. */
  readonly applied: string[] = [];
  readonly rules = {
    validateConfig(config: ConfigMap): void {
      const bad = Object.keys(config).find((key) => key === 'limits.nope');
      if (bad !== undefined) throw new AppError('invalid', `Unknown configuration key: ${bad}`);
    },
    validateDevices(): void {},
  };

  readonly readRoot: ReadRoot = async (_key, use) => {
    if (!this.root) throw new AppError('not_found', 'Instance not found');
    return use(this.root);
  };
  /** What there is to publish. */
  root: ReadableRoot | undefined;
  async adopt(): Promise<void> {}

  async stopAll(): Promise<void> {}

  async addMetrics(): Promise<void> {}

  async profileChanged({ name }: { readonly name: string }): Promise<void> {
    this.applied.push(name);
  }
}

export interface TestEngine extends AsyncDisposable {
  readonly engine: Engine<FakeInstances>;
  readonly storage: MemoryStorage;
  readonly app: ApiApp;
  readonly upgrades: Upgrades;
  readonly root: string;
  /** Stops everything and leaves the directory; disposing does both. */
  stop(): Promise<void>;
}

export interface TestEngineOptions {
  /** An earlier engine's directory, to start on what it left. */
  readonly root?: string;
  readonly storage?: MemoryStorage;
  /** Who every request is taken to come from; default: the unix socket. */
  readonly caller?: Caller;
  readonly firstPool?: string;
}

export async function startTestEngine(options: TestEngineOptions = {}): Promise<TestEngine> {
  const { storage = new MemoryStorage(), caller, firstPool } = options;
  const root = options.root ?? (await mkdtemp(join(tmpdir(), 'lighter-engine-')));
  const engine = await createEngine({
    root,
    host: new LinuxHost(),
    log: silentLog,
    events: createEvents(),
    version: '0',
    networkModules: {},
    storageModules: { memory: storage, dir: storage },
    runtimeVersion: async () => '5.0.2',
    defaultIdMap: async () => ({ uidBase: 1_000_000, gidBase: 1_000_000, size: 65_536 }),
    unpack: async () => undefined,
    createInstances: () => new FakeInstances(),
    ...(firstPool !== undefined && { firstPool: { driver: firstPool, config: {} } }),
  });
  for (const service of engine.services) await service.start(AbortSignal.timeout(10_000));
  const callerOf = caller ? () => caller : callerFrom(engine.context.database);
  const { projects } = engine.context.database;
  const app = createApi({
    log: silentLog,
    callerOf,
    projectExists: (name) => projects.find(name) !== undefined,
    config: engine.config,
  });
  const upgrades = new Upgrades({ callerOf, log: silentLog });
  const instanceRoutes = { extensions: [], register: () => undefined };
  registerRoutes(app, { engine, upgrades, instanceRoutes, shutdown: async () => undefined });
  await app.ready();
  let stopped = false;
  const stop = async () => {
    if (stopped) return;
    stopped = true;
    await app.close();
    upgrades.close();
    await engine.lastService.stop(AbortSignal.timeout(1000));
    for (const service of engine.services.toReversed()) await service.stop(AbortSignal.timeout(1000));
  };
  return {
    engine,
    storage,
    app,
    upgrades,
    root,
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      if (options.root === undefined) await rm(root, { recursive: true, force: true });
    },
  };
}
