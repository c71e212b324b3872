// What the compute service is configured with: nova's own options (contract section 9), typed, units in names.
import type { RabbitOptions } from '#src/messaging/options.ts';
import type { ServiceSettings } from '#src/openstack/settings.ts';
import type { OvsVifOptions } from '#drivers/vif/driver.ts';
import type { CpuSets } from '../resources/cpu-sets.ts';

export interface MessagingConfig {
  readonly transportUrl: string;
  readonly controlExchange: string;
  readonly responseTimeoutMs: number;
  /** How many requests run at once. */
  readonly executorThreadPoolSize: number;
  readonly pingEnabled: boolean;
  /** [oslo_messaging_rabbit]; src/messaging knows the options. */
  readonly rabbit: RabbitOptions;
  readonly notifications: {
    readonly drivers: readonly string[];
    /** Absent: the RPC one. */
    readonly transportUrl?: string;
    readonly topics: readonly string[];
    readonly retry: number;
    readonly format: 'unversioned' | 'versioned' | 'both';
    readonly versionedTopics: readonly string[];
    readonly bdmsInNotifications: boolean;
    /** instance_usage_audit_period. */
    readonly auditPeriod: string;
  };
}

export interface ServiceConfig {
  readonly reportIntervalMs: number;
  readonly serviceDownTimeMs: number;
  readonly periodicEnable: boolean;
  readonly periodicFuzzyDelayMs: number;
  /** Bounds the whole of a shutdown. */
  readonly gracefulShutdownTimeoutMs: number;
  /** Bounds the wait for operations that run. */
  readonly managerShutdownTimeoutMs: number;
}

export interface ResourcesConfig {
  readonly reservedHostMemoryMib: number;
  readonly reservedHostDiskMib: number;
  readonly reservedHostCpus: number;
  /** cpu_dedicated_set and cpu_shared_set. */
  readonly cpuSets: CpuSets;
  /** null: what Placement has, else the initial ratio. */
  readonly cpuAllocationRatio: number | null;
  readonly ramAllocationRatio: number | null;
  readonly diskAllocationRatio: number | null;
  readonly initialCpuAllocationRatio: number;
  readonly initialRamAllocationRatio: number;
  readonly initialDiskAllocationRatio: number;
  /** 0: 60 s; negative: off. */
  readonly updateIntervalMs: number;
  readonly associationRefreshMs: number;
  readonly providerConfigLocation: string;
  readonly imageTypeExcludeList: readonly string[];
  /** 0: failed builds are not counted. */
  readonly consecutiveBuildServiceDisableThreshold: number;
}

export interface BuildConfig {
  readonly instanceNameTemplate: string;
  readonly maxConcurrentBuilds: number;
  readonly maxConcurrentSnapshots: number;
  /** How long a shelved instance stays on its host; 0: not at all, negative: for ever. */
  readonly shelvedOffloadTimeMs: number;
  readonly networkAllocateRetries: number;
  /** How long new volumes are waited for. */
  readonly blockDeviceAllocateRetries: number;
  /** reimage_timeout_per_gb: of the image. */
  readonly reimageTimeoutPerGibMs: number;
  readonly blockDeviceAllocateRetryIntervalMs: number;
  readonly vifPluggingTimeoutMs: number;
  readonly vifPluggingIsFatal: boolean;
  readonly defaultAccessIpNetworkName: string | null;
  /** 0: never. */
  readonly instanceBuildTimeoutMs: number;
  readonly waitForVifPluggedEventDuringHardReboot: readonly string[];
  readonly disableGroupPolicyCheckUpcall: boolean;
}

export interface VendorTarget {
  readonly name: string;
  readonly url: string;
}

/** What the operator tells all guests. */
export interface VendorDataConfig {
  /** StaticJSON, DynamicJSON. */
  readonly providers: readonly string[];
  readonly file: string | null;
  readonly targets: readonly VendorTarget[];
  /** Whose credentials the services get, and how long they may take. */
  readonly settings: ServiceSettings;
  readonly isFailureFatal: boolean;
}

/** What guests are told of themselves and given before their first boot. */
export interface MetadataConfig {
  readonly forceConfigDrive: boolean;
  /** Behind host names; empty: none. */
  readonly dhcpDomain: string;
  /** EC2 versions that config drives lack. */
  readonly skippedEc2Versions: ReadonlySet<string>;
  readonly vendorData: VendorDataConfig;
  /** Whether the key of an instance is given to root by us. */
  readonly injectKey: boolean;
  /** Whether the administrator's password of a new instance is set by us. */
  readonly injectPassword: boolean;
}

export interface ConsoleConfig {
  /** How long a user's token is valid, and the way to the console stays open. */
  readonly tokenTtlMs: number;
  readonly serial: {
    readonly enabled: boolean;
    /** Of the proxy, as users reach it. */
    readonly baseUrl: string;
    /** Of this machine, as the proxy reaches it. */
    readonly proxyClientAddress: string;
    readonly firstPort: number;
    /** Exclusive. */
    readonly endPort: number;
  };
}

export interface PowerConfig {
  readonly shutdownTimeoutMs: number;
  readonly resumeGuestsStateOnHostBoot: boolean;
  readonly handleVirtLifecycleEvents: boolean;
  /** Spacing of _sync_power_states; 0: 60 s, negative: off. */
  readonly syncIntervalMs: number;
  readonly syncPoolSize: number;
}

/** Spacings and limits of the other periodic tasks. 0 as a spacing: 60 s, negative: off. */
export interface PeriodicConfig {
  readonly schedulerInstanceSyncIntervalMs: number;
  readonly trackInstanceChanges: boolean;
  readonly runningDeletedInstanceAction: 'noop' | 'log' | 'shutdown' | 'reap';
  readonly runningDeletedInstancePollIntervalMs: number;
  readonly runningDeletedInstanceTimeoutMs: number;
  readonly instanceDeleteIntervalMs: number;
  readonly maximumInstanceDeleteAttempts: number;
  readonly shelvedPollIntervalMs: number;
  /** 0: off. */
  readonly rescueTimeoutMs: number;
  /** _instance_usage_audit runs. */
  readonly instanceUsageAudit: boolean;
  readonly resizeConfirmWindowMs: number;
  /** 0: off. */
  readonly reclaimInstanceIntervalMs: number;
}

export interface NeutronConfig extends ServiceSettings {
  readonly ovsBridge: string;
  readonly extensionSyncIntervalMs: number;
}

export interface CinderConfig extends ServiceSettings {
  readonly crossAzAttach: boolean;
}

export interface ServiceUserConfig extends ServiceSettings {
  readonly sendServiceUserToken: boolean;
}

/** Section [lxd]: ours, so unknown options in it are refused. */
export interface LxdConfig {
  /** unix:///path or https://host:port. */
  readonly endpoint: string;
  readonly project: string;
  /** null: the pool of the first profile that has a root disk. */
  readonly storagePool: string | null;
  readonly profiles: readonly string[];
  readonly rootQuota: 'auto' | 'always' | 'never';
  /** Instances reach Nova's metadata service. */
  readonly metadataService: boolean;
  readonly configDriveDisk: boolean;
  readonly mkisofsCommand: string;
  readonly allowNesting: boolean;
  readonly allowPrivileged: boolean;
  readonly allowSuspendToDisk: boolean;
  /** HOST:PORT at which other hosts fetch guests; null: my_ip, if the engine listens there. */
  readonly migrationAddress: string | null;
  readonly migrationTimeoutMs: number;
  readonly maxConcurrentMigrations: number;
  readonly maxDiskImageGib: number;
  /** Where exports of NFS servers are mounted. */
  readonly nfsMountPointBase: string;
  readonly nfsMountOptions: string | null;
  readonly clientCert: string | null;
  readonly clientKey: string | null;
  readonly serverCert: string | null;
  readonly requestTimeoutMs: number;
  readonly imageTimeoutMs: number;
  readonly spawnTimeoutMs: number;
}

/** Hosts that are simulated, with compute_driver = fake. */
export interface FakeConfig {
  readonly hosts: number;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskGib: number;
  readonly delayMs: number;
}

export interface ComputeConfig {
  readonly host: string;
  readonly myIp: string;
  /** Of this host, as Cinder's back ends are to reach it. */
  readonly myBlockStorageIp: string;
  readonly statePath: string;
  readonly tempDir: string;
  /** Folders of the configuration files in the order read; compute_id is searched there. */
  readonly configFolders: readonly string[];
  /** A name of drivers/virt/registry.ts. */
  readonly computeDriver: string;
  /** SERVICE_VERSION of the control plane to assume when it cannot be asked; null: ask. */
  readonly controlPlaneServiceVersion: number | null;
  readonly log: { readonly debug: boolean; readonly file?: string };
  readonly messaging: MessagingConfig;
  readonly service: ServiceConfig;
  readonly resources: ResourcesConfig;
  readonly build: BuildConfig;
  readonly metadata: MetadataConfig;
  readonly power: PowerConfig;
  readonly periodic: PeriodicConfig;
  readonly console: ConsoleConfig;
  readonly placement: ServiceSettings;
  readonly neutron: NeutronConfig;
  readonly ovs: OvsVifOptions;
  readonly glance: ServiceSettings;
  readonly cinder: CinderConfig;
  readonly serviceUser: ServiceUserConfig;
  readonly lxd: LxdConfig;
  readonly fake: FakeConfig;
}
