// The compute service: start and stop in nova-compute's order (contract section 4.1).
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import type { RpcTransport } from '#src/messaging/types.ts';
import { createConductor } from '#src/nova/conductor.ts';
import { RequestContext } from '#src/nova/context.ts';
import { serializeNovaFailure } from '#src/nova/exceptions.ts';
import type { Cinder, Glance, Neutron, Placement } from '#src/openstack/types.ts';
import type { VifDriver } from '#drivers/vif/driver.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';
import type { ComputeConfig } from '../config/config.ts';
import { PowerSync } from '../periodic/power-sync.ts';
import { PeriodicRunner } from '../periodic/runner.ts';
import { periodicTasks } from '../periodic/tasks.ts';
import { type Asking, findService } from '../records.ts';
import { OutageRecovery } from '../recovery/after-outage.ts';
import { initHost, resumeMoves } from '../recovery/init-host.ts';
import { Unclaimed } from '../recovery/unclaimed.ts';
import { readProviderAdditions } from '../resources/provider-config.ts';
import { HostResourceTracker } from '../resources/tracker.ts';
import type { ComputeOperations } from '../operations.ts';
import { computeEndpoints, createInstanceOperations } from '../rpc/endpoints.ts';
import { UnderWay } from '../rpc/under-way.ts';
import type { ComputeServices, InstanceNotifications, InstanceOperations } from '../types.ts';
import type { HostVolumes } from '../volumes/host-volumes.ts';
import { Heartbeat } from './heartbeat.ts';
import { ownNodeUuid } from './identity.ts';
import { registerService, type ServiceRecord } from './service-record.ts';
import { chooseServiceVersion } from './service-version.ts';
import { waitForConductor, waitForEngine } from './wait-for.ts';

/** What the compute reaches the world through; made from the configuration by connect.ts, or by a test. */
export interface ComputeParts {
  readonly log: Log;
  readonly transport: RpcTransport;
  readonly virt: VirtDriver;
  readonly vifs: readonly VifDriver[];
  readonly placement: Placement;
  readonly neutron: Neutron;
  readonly glance: Glance;
  readonly cinder: Cinder;
  readonly volumes: HostVolumes;
  readonly connector: ComputeServices['connector'];
  readonly notifications: InstanceNotifications;
  readonly flushNotifications: (signal: AbortSignal) => Promise<void>;
}

/** Topics served, with the same methods; newer control planes use both (section 7.2). */
const TOPICS = ['compute', 'compute-alt'] as const;
/** Of the shutdown, kept for what comes after the operations. */
const CLEAN_UP_MS = 5000;
/** At start, for the first report. */
const PLACEMENT_PATIENCE_MS = 3000;

export function createComputeService(config: ComputeConfig, parts: ComputeParts): Service {
  return new ComputeService(config, parts);
}

interface Identified {
  readonly record: ServiceRecord | undefined;
  readonly nodeName: string;
  readonly tracker: HostResourceTracker;
}

class ComputeService implements Service {
  readonly name = 'nova-compute';
  readonly #config: ComputeConfig;
  readonly #parts: ComputeParts;
  readonly #asking: Asking;
  readonly #locks = new KeyedLock();
  readonly #following = new AbortController();
  #operations: ComputeOperations | undefined;
  #servers: readonly Service[] = [];
  /** Started after the servers, stopped before them. */
  #background: readonly Service[] = [];

  constructor(config: ComputeConfig, parts: ComputeParts) {
    this.#config = config;
    this.#parts = parts;
    this.#asking = { conductor: createConductor(parts.transport.client()), context: RequestContext.admin() };
  }

  async start(signal: AbortSignal): Promise<void> {
    const { log, transport, virt } = this.#parts;
    const { messaging, tempDir } = this.#config;
    await waitForConductor(transport.client(), messaging.responseTimeoutMs, log, signal);
    await this.#checkPlacement(signal);
    await waitForEngine((until) => virt.start(until), log, signal);
    await checkWritable(tempDir);
    const identified = await this.#identify(signal);
    const { tracker } = identified;
    const services = this.#services(tracker);
    const operations = createInstanceOperations(services);
    this.#operations = operations;
    const { instances, unclaimed } = await initHost(services, operations, this.#asking.context, signal);
    const record = await this.#register(identified.record);
    tracker.useService(record.get('id'));
    await this.#firstUpdate(tracker, signal);
    // a host that Nova did not know has no moves
    if (identified.record) await resumeMoves(services, operations, { asking: this.#asking, instances }, signal);
    this.#servers = this.#createServers(services, operations);
    for (const server of this.#servers) await server.start(signal);
    this.#background = this.#createBackground({ services, operations, tracker, record, unclaimed });
    for (const service of this.#background) await service.start(signal);
    log.info('compute is up', { host: this.#config.host, node: identified.nodeName, version: record.get('version') });
  }

  /** No write to Nova: that the host is gone shows by its silence, as with every nova-compute. */
  async stop(signal: AbortSignal): Promise<void> {
    const { log, transport, virt, flushNotifications } = this.#parts;
    const { managerShutdownTimeoutMs } = this.#config.service;
    log.info('stopping');
    this.#following.abort();
    const [main, alternate] = this.#servers;
    const patience = limited(Math.max(0, managerShutdownTimeoutMs - CLEAN_UP_MS), signal);
    const end = async (what: string, work: Promise<unknown> | undefined): Promise<void> => {
      await work?.catch((error: unknown) => log.warn('not stopped cleanly', { what, error }));
    };
    await Promise.all(this.#background.map((service) => end(service.name, service.stop(patience))));
    await end('queue compute', main?.stop(patience));
    await end('operations', this.#operations?.drain(patience));
    // after `compute`: events that running operations wait for may come through it
    await end('queue compute-alt', alternate?.stop(limited(CLEAN_UP_MS, signal)));
    this.#operations?.cancelWaits();
    await end('consoles', this.#operations?.consoles.close());
    await end('notifications', flushNotifications(limited(CLEAN_UP_MS, signal)));
    await end('engine', virt.stop());
    await end('messaging', transport.close());
  }

  /** Wrong credentials are the operator's to correct; a Placement that does not answer is not waited for. */
  async #checkPlacement(signal: AbortSignal): Promise<void> {
    const { placement, log } = this.#parts;
    try {
      await placement.knownTraits(['COMPUTE_NODE'], signal);
    } catch (error) {
      signal.throwIfAborted();
      if (['unauthorized', 'forbidden', 'invalid'].includes(kindOf(error))) throw error;
      log.error('Placement cannot be asked, starting without it', { error });
    }
  }

  async #identify(signal: AbortSignal): Promise<Identified> {
    const { log, virt, placement } = this.#parts;
    const { host, myIp, statePath, configFolders, resources } = this.#config;
    const service = await findService(this.#asking, host);
    const { hypervisorHostname: nodeName } = await virt.hostFacts(signal);
    const hasGuests = (await virt.listInstances(signal)).length > 0;
    const folders = { statePath, configFolders };
    const uuid = await ownNodeUuid({ asking: this.#asking, folders, host, nodeName, service, hasGuests, log });
    const additions = await readProviderAdditions(resources.providerConfigLocation, { uuid, name: nodeName }, log);
    const tracker = new HostResourceTracker({
      config: resources,
      identity: { uuid, host, hostIp: myIp },
      nodeName,
      additions,
      conductor: this.#asking.conductor,
      placement,
      virt,
      log,
    });
    return { record: service, nodeName, tracker };
  }

  #services(tracker: HostResourceTracker): ComputeServices {
    const { transport, flushNotifications: _flush, ...parts } = this.#parts;
    const { conductor } = this.#asking;
    const own = { config: this.#config, locks: this.#locks, underWay: new UnderWay() };
    return { ...parts, ...own, conductor, rpc: transport.client(), tracker };
  }

  #register(present: ServiceRecord | undefined): Promise<ServiceRecord> {
    const { controlPlaneServiceVersion, host, service } = this.#config;
    const question = {
      asking: this.#asking,
      override: controlPlaneServiceVersion,
      serviceDownTimeMs: service.serviceDownTimeMs,
      log: this.#parts.log,
    };
    return registerService(this.#asking, host, present, (version) =>
      chooseServiceVersion({ ...question, present: version }),
    );
  }

  /** What fails here is tried again every minute. A slow Placement does not keep this host from working for long. */
  async #firstUpdate(tracker: HostResourceTracker, signal: AbortSignal): Promise<void> {
    const until = AbortSignal.any([signal, this.#following.signal]);
    const failed = (error: unknown): void => {
      if (until.aborted) return;
      this.#parts.log.error('resources not reported, trying again later', { error });
    };
    try {
      const report = await tracker.read(this.#asking.context, until);
      await withPatience(report().catch(failed), PLACEMENT_PATIENCE_MS);
    } catch (error) {
      failed(error);
    }
    signal.throwIfAborted();
  }

  #createServers(services: ComputeServices, operations: ComputeOperations): readonly Service[] {
    const { host, messaging } = this.#config;
    const endpoints = computeEndpoints(services, operations);
    return TOPICS.map((topic) =>
      this.#parts.transport.server({
        topic,
        server: host,
        endpoints,
        serializeFailure: serializeNovaFailure,
        concurrency: messaging.executorThreadPoolSize,
        pingEnabled: messaging.pingEnabled,
        service: 'compute',
      }),
    );
  }

  #createBackground(running: {
    readonly services: ComputeServices;
    readonly operations: InstanceOperations;
    readonly tracker: HostResourceTracker;
    readonly record: ServiceRecord;
    readonly unclaimed: readonly string[];
  }): readonly Service[] {
    const { services, operations, tracker, record, unclaimed } = running;
    const { log, transport, virt } = this.#parts;
    const { host, service, power } = this.#config;
    const conductor = createConductor(transport.client({ timeoutMs: Math.max(service.reportIntervalMs, 10_000) }));
    const recovery = new OutageRecovery(services, operations, this.#config.messaging.responseTimeoutMs);
    const lookAfterTasks = (): void => void recovery.begin();
    services.underWay.whenTaskIsLeft(lookAfterTasks);
    const beats = { conductor, intervalMs: service.reportIntervalMs, log };
    const heartbeat = new Heartbeat(record, { ...beats, onAnsweredAgain: lookAfterTasks });
    const sync = { host, poolSize: power.syncPoolSize, conductor: services.conductor, virt, operations };
    const powerSync = new PowerSync({ ...sync, locks: this.#locks, log });
    if (power.handleVirtLifecycleEvents) powerSync.follow(this.#following.signal);
    const isBusy = (uuid: string): boolean => this.#locks.isBusy(uuid) || services.underWay.has(uuid);
    const interrupted = new Unclaimed({ asking: this.#asking, operations, log, host, isBusy }, unclaimed);
    const always = [heartbeat, recovery, interrupted];
    if (!service.periodicEnable) return always;
    const updateResources = tracker.update.bind(tracker);
    const tasks = periodicTasks({ services, operations, powerSync, updateResources });
    return [...always, new PeriodicRunner(tasks, { log, fuzzyDelayMs: service.periodicFuzzyDelayMs })];
  }
}

/** Resolves with the work or without it. */
async function withPatience(work: Promise<void>, patienceMs: number): Promise<void> {
  const done = new AbortController();
  const patience = sleep(patienceMs, done.signal).catch(() => undefined);
  await Promise.race([work, patience]);
  done.abort();
}

async function checkWritable(folder: string): Promise<void> {
  try {
    await access(folder, constants.W_OK);
  } catch (error) {
    throw new AppError('unavailable', `temporary folder ${folder} is not writable`, { cause: error });
  }
}
