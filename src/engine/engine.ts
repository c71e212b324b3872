// The engine put together: every part made once, in the order in which they need each other.
import type { NetworkModule } from '#drivers/network/driver.ts';
import type { StorageModule } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { BackupNames } from './backups/backup-names.ts';
import { Certificates } from './certificates/certificates.ts';
import { loadServerCertificate, type ServerCertificate } from './certificates/server-certificate.ts';
import { type EngineContext, enginePaths } from './context.ts';
import { makeDirectories } from './directories.ts';
import { type EngineDatabase, openDatabase } from './db/database.ts';
import type { EventHub } from './events/events.ts';
import { ImageAliases } from './images/aliases.ts';
import { ImageDownloads } from './images/downloads.ts';
import { ImageFiles } from './images/image-files.ts';
import { Images, type ImageUnpacker } from './images/images.ts';
import { ImagePublisher } from './images/publisher.ts';
import { addDaemon } from './metrics/daemon-metrics.ts';
import { MetricSet } from './metrics/open-metrics.ts';
import { ImageUpkeep } from './images/upkeep.ts';
import { logExpiry } from './instances/log-expiry.ts';
import { NetworkForwards } from './networks/forwards.ts';
import { Networks } from './networks/networks.ts';
import { NicNetworks } from './networks/nic-networks.ts';
import { createOperations, type OperationRegistry } from './operations/operations.ts';
import { Profiles } from './profiles/profiles.ts';
import { ProjectGate } from './projects/project-gate.ts';
import { Projects } from './projects/projects.ts';
import type { ProxySettings } from './server/proxy.ts';
import { architecturesOf, environmentOf, type HostFacts, readHostFacts, usableDrivers } from './server/environment.ts';
import { readResources } from './server/resources/resources.ts';
import { ServerVolumes } from './server/server-volumes.ts';
import { ServerConfig } from './server/server-config.ts';
import { type FirstPool, setUpFirstPool } from './storage/first-pool.ts';
import { Shortages } from './storage/shortages.ts';
import { StoragePools } from './storage/storage-pools.ts';
import type { InstancesPart } from './types.ts';
import { InstanceRecords } from './recovery/instance-records.ts';
import { Recovery } from './recovery/recovery.ts';
import { CustomSnapshots } from './volumes/custom-snapshots.ts';
import { VolumeBackups } from './volumes/volume-backups.ts';
import { CustomVolumes } from './volumes/custom-volumes.ts';
import { VolumeMigrations } from './volumes/volume-migrations.ts';

/** setTimeout's limit; about 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface EngineOptions<Instances extends InstancesPart> {
  /** $LIGHTER_DIR. */
  readonly root: string;
  readonly host: Host;
  readonly log: Log;
  readonly events: EventHub;
  readonly version: string;
  readonly storageModules: Readonly<Record<string, StorageModule>>;
  readonly networkModules: Readonly<Record<string, NetworkModule>>;
  readonly runtimeVersion: () => Promise<string>;
  readonly defaultIdMap: () => Promise<IdMapRange>;
  readonly unpack: ImageUnpacker;
  readonly createInstances: (context: EngineContext) => Instances;
  /** For downloads while none is configured. */
  readonly proxies?: ProxySettings;
  /** Made at the first start; undefined: none. */
  readonly firstPool?: FirstPool;
}

export interface Engine<Instances extends InstancesPart = InstancesPart> {
  readonly context: EngineContext;
  readonly operations: OperationRegistry;
  readonly events: EventHub;
  readonly profiles: Profiles;
  readonly projects: Projects;
  readonly pools: StoragePools;
  readonly volumes: CustomVolumes;
  readonly volumeSnapshots: CustomSnapshots;
  readonly volumeBackups: VolumeBackups;
  readonly volumeMigrations: VolumeMigrations;
  readonly shortages: Shortages;
  readonly recovery: Recovery;
  readonly images: Images;
  readonly publisher: ImagePublisher;
  readonly downloads: ImageDownloads;
  readonly upkeep: ImageUpkeep;
  readonly aliases: ImageAliases;
  readonly networks: Networks;
  readonly forwards: NetworkForwards;
  readonly certificates: Certificates;
  readonly config: ServerConfig;
  readonly serverCertificate: ServerCertificate;
  readonly instances: Instances;
  readonly facts: HostFacts;
  environment(): object;
  resources(): Promise<object>;
  /** As text; of the instances of all projects, or of some. */
  metrics(projects: ReadonlySet<string> | undefined, signal: AbortSignal): Promise<string>;
  /** In the order of their start; the API comes after them. */
  readonly services: readonly Service[];
  /** Comes after the API: operations end while clients can still see how. */
  readonly lastService: Service;
}

// oxlint-disable-next-line max-lines-per-function -- the list of parts, in one place and without decisions
export async function createEngine<Instances extends InstancesPart>(
  options: EngineOptions<Instances>,
): Promise<Engine<Instances>> {
  const { root, host, log, events, storageModules, version } = options;
  const paths = enginePaths(root);
  await makeDirectories(host, paths.root);
  const facts = await readHostFacts(host, root, options.runtimeVersion);
  const drivers = await usableDrivers(host, storageModules);
  const serverCertificate = await loadServerCertificate(host, root, facts.hostname);
  const database = openDatabase(paths.database);
  const operations = createOperations({ events, log, explain: (error) => shortages.explain(error) });
  const locks = new KeyedLock();
  const gate = new ProjectGate(database);
  const config = new ServerConfig({ database, events }, options.proxies);
  const base = { paths, host, log, database, locks, operations, events, gate, config };
  const defaultIdMap = await options.defaultIdMap();
  const pools = new StoragePools({ context: base, modules: storageModules, defaultIdMap });
  const shortages = new Shortages({ host, log, pools, root });
  const files = new ImageFiles(paths.images);
  const images = new Images({ context: base, pools, files, unpack: options.unpack });
  const downloads = new ImageDownloads({
    context: base,
    images,
    version,
    architectures: architecturesOf(facts),
  });
  const networks = new Networks({
    context: base,
    modules: options.networkModules,
    fingerprint: serverCertificate.fingerprint,
  });
  const volumes = new CustomVolumes({ ...base, pools });
  const context = { ...base, pools, images, downloads, volumes, networks: new NicNetworks(base, networks) };
  const instances = options.createInstances(context);
  const volumeBackups = new VolumeBackups(context, volumes);
  const volumeSnapshots = new CustomSnapshots(context, volumes, instances.isRunning);
  const listenAddress = () => config.listenAddress();
  const upkeep = new ImageUpkeep({ context, images, pools, downloads });
  upkeep.follow(config);
  return {
    context,
    operations,
    events,
    profiles: new Profiles(base, instances),
    projects: projectsWith(base, volumes, networks),
    pools,
    shortages,
    volumes,
    volumeSnapshots,
    volumeBackups,
    volumeMigrations: new VolumeMigrations({ context, volumes, snapshots: volumeSnapshots }),
    recovery: new Recovery({ context, pools, instances }),
    images,
    downloads,
    upkeep,
    publisher: new ImagePublisher(base, images, instances.readRoot),
    aliases: new ImageAliases(base),
    networks,
    forwards: new NetworkForwards(base, networks),
    certificates: new Certificates(base),
    config,
    serverCertificate,
    instances,
    facts,
    environment: () => {
      return environmentOf({
        facts,
        certificate: serverCertificate,
        pools,
        drivers,
        listenAddress,
        version,
      });
    },
    resources: () => readResources(facts.architecture),
    metrics: async (projects, signal) => {
      const set = new MetricSet();
      await instances.addMetrics(set, projects, signal);
      if (!projects) addDaemon(set, { database, operations });
      return set.text();
    },
    services: [
      databaseService(database),
      pools,
      firstStart(database, pools, options.firstPool),
      volumes,
      new ServerVolumes({ context, volumes, config }),
      networks,
      imagesService(images),
      instances.service,
      new InstanceRecords(context, events),
      volumeSnapshots,
      volumeBackups,
      new BackupNames(context, events),
      upkeep.service,
      logExpiry(base),
    ],
    lastService: operationsService(operations, config),
  };
}

function projectsWith(
  base: ConstructorParameters<typeof Projects>[0],
  volumes: CustomVolumes,
  networks: Networks,
): Projects {
  const projects = new Projects(base);
  projects.countUsers((project) => networks.urlsOf(project));
  projects.countUsers((project) => volumes.urlsOf(project));
  return projects;
}

function databaseService(database: EngineDatabase): Service {
  return { name: 'database', start: async () => undefined, stop: async () => database[Symbol.dispose]() };
}

function firstStart(database: EngineDatabase, pools: StoragePools, first: FirstPool | undefined): Service {
  return {
    name: 'first start',
    start: (signal) => setUpFirstPool(database, pools, first, signal),
    stop: async () => undefined,
  };
}

function imagesService(images: Images): Service {
  return { name: 'images', start: (signal) => images.clean(signal), stop: async () => undefined };
}

function operationsService(operations: OperationRegistry, config: ServerConfig): Service {
  return {
    name: 'operations',
    start: async () => undefined,
    stop: (signal) => operations.drain(signal),
    graceMs: () => Math.min(MAX_TIMER_MS, Math.max(1, config.number('core.shutdown_timeout') * 60_000)),
  };
}
