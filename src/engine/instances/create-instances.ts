// Puts the instances part together: drivers, rules, supervisor, operations, and the service that reconciles at start.
import { join } from 'node:path';
import type { DeviceModule } from '#drivers/devices/driver.ts';
import type { NicModule } from '#drivers/nic/driver.ts';
import type { RuntimeModule } from '#drivers/runtime/driver.ts';
import { Forwarder } from '#src/host/forwarding/forwarder.ts';
import type { Service } from '#src/lib/service.ts';
import type { EngineContext } from '../context.ts';
import { InstanceBackups } from '../backups/instance-backups.ts';
import { InstanceImport } from '../backups/instance-import.ts';
import type { InstancesPart } from '../types.ts';
import { adoptRunning } from './adopt.ts';
import { type Autostart, autostart, isNewBoot, keepPlanned, noteBoot, planAutostart, withThose } from './autostart.ts';
import { InstanceChanges } from './changes.ts';
import { createRules } from './config-rules.ts';
import { InstanceCopies } from './copy.ts';
import { InstanceCreation } from './creation.ts';
import { addInstanceMetrics } from './figures.ts';
import { InstanceConsole } from './console.ts';
import { InstanceExec } from './exec.ts';
import { stopAll } from './host-shutdown.ts';
import { InstanceFiles } from './files.ts';
import { InstanceMetadata } from './instance-metadata.ts';
import { Instances } from './instances.ts';
import { InstanceDevices } from './devices.ts';
import { Devlxd } from './devlxd.ts';
import { DiskSources } from './lent-roots.ts';
import { InstanceLifecycle } from './lifecycle.ts';
import { LiveChanges } from './live-changes.ts';
import { MigrationSink } from './migration-sink.ts';
import { MigrationSource } from './migration-source.ts';
import { InstanceMoves } from './move.ts';
import { InstanceNics } from './nics.ts';
import { InstanceRoots } from './instance-roots.ts';
import { InstancePower } from './power.ts';
import { InstanceRebuild } from './rebuild.ts';
import { InstanceRestore } from './restore.ts';
import { SavedStates } from './saved-states.ts';
import { SnapshotSchedule } from './snapshot-schedule.ts';
import { InstanceSftp } from './sftp.ts';
import { InstanceSnapshots } from './snapshots.ts';
import { CreationSources } from './sources.ts';
import { reconcileInstances, type ReconcileParts, settleLate } from './reconcile.ts';
import { refreshDevice } from './refresh-device.ts';
import { rootReader } from './read-root.ts';
import { CpuBalancer } from './cpu-balancer.ts';
import { Supervisor } from './supervisor.ts';
import { InstanceTrees } from './trees.ts';
import { forgetStartAgain, startAgain } from './while-stopped.ts';

export interface InstanceDrivers {
  readonly runtime: RuntimeModule;
  /** By nictype. */
  readonly nics: Readonly<Record<string, NicModule>>;
  /** By type. */
  readonly devices: Readonly<Record<string, DeviceModule>>;
  /** Whether no container may have the host's root as its own; default: false. */
  readonly unprivilegedOnly?: boolean;
}

export interface InstancesOfEngine extends InstancesPart {
  readonly instances: Instances;
  readonly exec: InstanceExec;
  readonly console: InstanceConsole;
  readonly metadata: InstanceMetadata;
  readonly devlxd: Devlxd;
  readonly backups: InstanceBackups;
  readonly imports: InstanceImport;
  readonly snapshots: InstanceSnapshots;
  readonly restore: InstanceRestore;
  readonly moves: InstanceMoves;
  readonly rebuild: InstanceRebuild;
  readonly migrations: MigrationSource;
  readonly files: InstanceFiles;
  readonly sftp: InstanceSftp;
}

// oxlint-disable-next-line max-lines-per-function -- the list of parts, in one place and without decisions
export function createInstances(context: EngineContext, drivers: InstanceDrivers): InstancesOfEngine {
  const { host, log, paths } = context;
  const runtime = drivers.runtime.create({ host, log, containersPath: paths.containers });
  const supervisor = new Supervisor(runtime, log);
  const volumes = new DiskSources({ context, supervisor });
  const nicDrivers = Object.fromEntries(
    Object.entries(drivers.nics).map(([nictype, module]) => [nictype, module.create({ host, log })]),
  );
  const forwards = new Forwarder({ directory: join(paths.root, 'forwards'), log });
  const deviceDrivers = Object.fromEntries(
    Object.entries(drivers.devices).map(([type, module]) => {
      const sourceParent = (project: string, source: string) => context.gate.sourceParent(project, source);
      return [
        type,
        module.create({
          host,
          log,
          forwards,
          devicesPath: paths.devices,
          homesPath: paths.instances,
          servedPath: paths.servedDisks,
          volumes,
          sourceParent,
        }),
      ];
    }),
  );
  const rules = createRules({
    nics: nicDrivers,
    devices: deviceDrivers,
    networks: context.networks,
    validateRaw: (raw) => runtime.validateRaw(raw),
    unprivilegedOnly: drivers.unprivilegedOnly ?? false,
  });
  const nics = new InstanceNics({ drivers: nicDrivers, networks: context.networks, host, log });
  const devices: InstanceDevices = new InstanceDevices({
    drivers: deviceDrivers,
    runtime,
    host,
    log,
    devicesPath: paths.devices,
    blocksPath: paths.blocks,
    changed: (key, device) => void refreshDevice({ context, supervisor, live }, key, device),
  });
  const cpus = new CpuBalancer({ host, log, runtime, supervisor });
  const states = new SavedStates({ context, runtime });
  context.config.onChange('lighter.criu.path', (path) => states.checkProgram(path));
  const snapshots = new InstanceSnapshots({ context, runtime, supervisor, states });
  const roots = new InstanceRoots(context, runtime);
  const own = { context, runtime, supervisor, nics, devices, snapshots, cpus, roots, states };
  const lifecycle = new InstanceLifecycle(own);
  const live: LiveChanges = new LiveChanges({ context, runtime, devices, nics, lifecycle, cpus });
  const devlxd = new Devlxd(context.database, supervisor);
  const changes = new InstanceChanges({
    context,
    rules,
    supervisor,
    devices,
    live,
    devlxd,
    snapshots,
    ids: lifecycle.ids,
  });
  const power = new InstancePower({ context, runtime, supervisor, lifecycle, changes, states });
  supervisor.handle(power);
  const copies = new InstanceCopies({ context, lifecycle, runtime, supervisor });
  const sink = new MigrationSink({ context, lifecycle, copies, snapshots });
  const stopping = new AbortController();
  const boot: Boot = { stopping, pending: false, failed: [] };
  const creation = new InstanceCreation({ context, rules, lifecycle, devices, copies, sink, roots });
  const sources = new CreationSources({ context, snapshots, supervisor });
  const base = { context, runtime, rules, supervisor, lifecycle, roots, states };
  const parts = { ...base, creation, changes, power, snapshots, copies, sources, sink };
  const instances = new Instances(parts);
  const trees = new InstanceTrees({ context, runtime, supervisor, lifecycle, roots });
  const readRoot = rootReader({ context, lifecycle, supervisor });
  const backups = new InstanceBackups(context, readRoot);
  const reconcile = { context, runtime, supervisor, lifecycle, live, nics, roots, states };
  return {
    adopt: (instance, signal) => adoptRunning(reconcile, instance, signal),
    instances,
    devlxd,
    backups,
    imports: new InstanceImport(context, creation, backups.files),
    exec: new InstanceExec({ context, runtime, supervisor, trees }),
    console: new InstanceConsole({ context, runtime, supervisor }),
    metadata: new InstanceMetadata(context),
    snapshots,
    restore: new InstanceRestore(parts),
    moves: new InstanceMoves(parts),
    rebuild: new InstanceRebuild(parts),
    migrations: new MigrationSource(parts),
    files: new InstanceFiles({ context, trees }),
    sftp: new InstanceSftp({ log, trees }),
    rules,
    readRoot,
    stopAll: (signal) => {
      stopping.abort(new Error('the host goes down'));
      return stopAll({ context, supervisor, power }, signal);
    },
    isRunning: (id) => supervisor.status(id) !== 'Stopped',
    haveStarted: () => !boot.pending,
    addMetrics: (set, projects, signal) => addInstanceMetrics({ instances, runtime }, set, { projects, signal }),
    service: createService(reconcile, {
      boot,
      periodic: [
        new SnapshotSchedule(parts),
        backups,
        { start: async () => undefined, stop: () => devices.close() },
        { start: async () => undefined, stop: () => roots.close() },
        cpus,
      ],
    }),
    profileChanged: (former, signal) => instances.profileChanged(former, signal),
  };
}

/** What works by itself from time to time. */
interface Periodic {
  start(): Promise<void>;
  stop(signal: AbortSignal): Promise<void> | void;
}

/** How far the start of what is to start by itself has come. */
interface Boot {
  readonly stopping: AbortController;
  pending: boolean;
  /** It is tried again when its pool is there. */
  failed: readonly Autostart[];
}

interface ServiceParts {
  readonly boot: Boot;
  readonly periodic: readonly Periodic[];
}

function createService(parts: ReconcileParts, { boot, periodic }: ServiceParts): Service {
  const { context, supervisor } = parts;
  return {
    name: 'instances',
    async start(signal) {
      const plan = (await isNewBoot(context)) ? planAutostart(parts) : undefined;
      await reconcileInstances(parts, signal);
      for (const part of periodic) await part.start();
      context.pools.onReturn((pool, ending) =>
        takeUp(parts, boot, { pool, signal: AbortSignal.any([ending, boot.stopping.signal]) }),
      );
      const again = await startAgain(context);
      if (!plan && again.length === 0) return;
      if (plan) keepPlanned(parts, plan);
      // Beside everything else: clients are served while the host's instances come up.
      boot.pending = true;
      const all = withThose(plan ?? [], again);
      const starting = autostart(parts, all, AbortSignal.any([signal, boot.stopping.signal]));
      void starting
        .then(async (failed) => {
          boot.failed = failed;
          for (const record of again) await forgetStartAgain(context, record);
          await noteBoot(context);
        })
        .finally(() => {
          boot.pending = false;
        })
        .catch((error: unknown) => context.log.warn('autostart ended early', { error }));
    },
    async stop(signal) {
      boot.stopping.abort(new Error('the daemon stops'));
      for (const part of periodic) await part.stop(signal);
      supervisor.stop();
    },
  };
}

/** What a pool that was away at the start kept from being done. */
async function takeUp(
  parts: ReconcileParts,
  boot: Boot,
  { pool, signal }: { readonly pool: string; readonly signal: AbortSignal },
): Promise<void> {
  await settleLate(parts, pool, signal);
  const due = boot.failed.filter(({ record }) => record.pool === pool);
  boot.failed = boot.failed.filter((entry) => !due.includes(entry));
  const failed = await autostart(parts, due, signal);
  boot.failed = [...boot.failed, ...failed];
}
