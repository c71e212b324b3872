// Options of nova.conf to the typed ComputeConfig; the only place that knows both names.
import { parseAuditUnit } from '#src/nova/notifications/audit-period.ts';
import { isAbsolute, join } from 'node:path';
import { messageOf } from '#src/lib/errors.ts';
import {
  defaultRabbitOptions,
  parseRabbitOptions,
  type RabbitOptions,
  rabbitOptionName,
} from '#src/messaging/options.ts';
import { composeLxd } from './compose-lxd.ts';
import {
  composeCinder,
  composeGlance,
  composeNeutron,
  composePlacement,
  composeServiceUser,
  composeVendorData,
} from './compose-openstack.ts';
import type * as Config from './config.ts';
import type { Options } from './options.ts';
import { SectionReader } from './read.ts';
import { parseCpuSet } from '../resources/cpu-sets.ts';

/** SERVICE_VERSION of each release (contract section 7.1). */
const RELEASE_SERVICE_VERSION: Readonly<Record<string, number>> = {
  zed: 64,
  '2023.1': 66,
  '2023.2': 66,
  '2024.1': 67,
  '2024.2': 67,
  '2025.1': 68,
  '2025.2': 70,
  '2026.1': 72,
  '2026.2': 74,
};

const MAX_PORT = 65_535;

/** What is wrong is added to `options.complaints`; the result is to be used only when there are none. */
export function composeConfig(options: Options, configFolders: readonly string[]): Config.ComputeConfig {
  const main = new SectionReader(options, 'DEFAULT');
  const release = new SectionReader(options, 'lxd').optionalString('control_plane_release');
  return {
    host: main.string('host'),
    myIp: main.string('my_ip'),
    myBlockStorageIp: main.string('my_block_storage_ip'),
    statePath: main.string('state_path'),
    tempDir: main.string('tempdir'),
    configFolders,
    computeDriver: driverName(main),
    controlPlaneServiceVersion: release === undefined ? null : (RELEASE_SERVICE_VERSION[release] ?? null),
    log: logConfig(main),
    messaging: messaging(options, main),
    service: service(main),
    resources: resources(options, main),
    build: build(options, main),
    metadata: metadata(options, main),
    power: power(options, main),
    periodic: periodic(options, main),
    console: consoles(options),
    placement: composePlacement(options),
    neutron: composeNeutron(options),
    ovs: ovs(options),
    glance: composeGlance(options),
    cinder: composeCinder(options),
    serviceUser: composeServiceUser(options),
    lxd: composeLxd(options),
    fake: fake(options),
  };
}

function fake(options: Options): Config.FakeConfig {
  const reader = new SectionReader(options, 'fake');
  return {
    hosts: reader.number('hosts'),
    vcpus: reader.number('vcpus'),
    memoryMib: reader.number('memory_mb'),
    diskGib: reader.number('disk_gb'),
    delayMs: reader.ms('delay'),
  };
}

/** nova names a driver by its Python class; those of the container drivers and of the fakes are understood. */
function driverName(main: SectionReader): string {
  const name = main.string('compute_driver');
  const last = name.split('.').at(-1) ?? name;
  if (/^lxd(driver)?$/i.test(last)) return 'lxd';
  if (/^(small|medium|)fake(driver)?$/i.test(last)) return 'fake';
  main.complain('compute_driver', `${name} is not a driver of this program; use lxd or fake`);
  return name;
}

function logConfig(main: SectionReader): Config.ComputeConfig['log'] {
  const folder = main.optionalString('log_dir');
  const name = main.optionalString('log_file') ?? (folder === undefined ? undefined : 'nova-compute.log');
  if (name === undefined) return { debug: main.boolean('debug') };
  const file = folder === undefined || isAbsolute(name) ? name : join(folder, name);
  return { debug: main.boolean('debug'), file };
}

function messaging(options: Options, main: SectionReader): Config.MessagingConfig {
  return {
    transportUrl: main.string('transport_url'),
    controlExchange: main.string('control_exchange'),
    responseTimeoutMs: main.ms('rpc_response_timeout'),
    executorThreadPoolSize: main.number('executor_thread_pool_size'),
    pingEnabled: main.boolean('rpc_ping_enabled'),
    rabbit: rabbit(options),
    notifications: notifications(options),
  };
}

/** Options that we do not know are tolerated, as oslo.config does: the file may be shared with Python services. */
function rabbit(options: Options): RabbitOptions {
  const section = 'oslo_messaging_rabbit';
  const written = Object.entries(options.raw(section)).filter(([name]) => rabbitOptionName(name) !== undefined);
  const good = written.flatMap(([name, texts]) => {
    const single = { [name]: texts.at(-1) ?? '' };
    return parsedRabbit(single, (message) => options.complain(section, name, message)) ? [single] : [];
  });
  const all: Readonly<Record<string, string>> = Object.assign({}, ...good);
  return parsedRabbit(all, (message) => options.complain(section, '', message)) ?? defaultRabbitOptions;
}

function parsedRabbit(
  raw: Readonly<Record<string, string>>,
  complain: (message: string) => void,
): RabbitOptions | undefined {
  try {
    return parseRabbitOptions(raw);
  } catch (error) {
    complain(messageOf(error));
    return undefined;
  }
}

function notifications(options: Options): Config.MessagingConfig['notifications'] {
  const transport = new SectionReader(options, 'oslo_messaging_notifications');
  const content = new SectionReader(options, 'notifications');
  const transportUrl = transport.optionalString('transport_url');
  return {
    drivers: transport.strings('driver'),
    ...(transportUrl !== undefined && { transportUrl }),
    topics: transport.strings('topics'),
    retry: transport.number('retry'),
    format: content.string('notification_format') as Config.MessagingConfig['notifications']['format'],
    versionedTopics: content.strings('versioned_notifications_topics'),
    bdmsInNotifications: content.boolean('bdms_in_notifications'),
    auditPeriod: auditPeriod(new SectionReader(options, 'DEFAULT')),
  };
}

function auditPeriod(main: SectionReader): string {
  const name = 'instance_usage_audit_period';
  const text = main.string(name);
  if (!parseAuditUnit(text)) main.complain(name, `${text} is not hour, day, month or year with an offset within it`);
  return text;
}

function service(main: SectionReader): Config.ServiceConfig {
  const reportIntervalMs = main.ms('report_interval');
  const downTimeMs = main.ms('service_down_time');
  return {
    reportIntervalMs,
    // a service must be able to report before it counts as down
    serviceDownTimeMs: downTimeMs > reportIntervalMs ? downTimeMs : reportIntervalMs * 2.5,
    periodicEnable: main.boolean('periodic_enable'),
    periodicFuzzyDelayMs: main.ms('periodic_fuzzy_delay'),
    gracefulShutdownTimeoutMs: main.ms('graceful_shutdown_timeout'),
    managerShutdownTimeoutMs: main.ms('manager_shutdown_timeout'),
  };
}

function resources(options: Options, main: SectionReader): Config.ResourcesConfig {
  const compute = new SectionReader(options, 'compute');
  const ratio = (name: string): number | null => main.optionalNumber(name) || null;
  return {
    reservedHostMemoryMib: main.number('reserved_host_memory_mb'),
    reservedHostDiskMib: main.number('reserved_host_disk_mb'),
    reservedHostCpus: main.number('reserved_host_cpus'),
    cpuSets: { dedicated: cpuSet(compute, 'cpu_dedicated_set'), shared: cpuSet(compute, 'cpu_shared_set') },
    cpuAllocationRatio: ratio('cpu_allocation_ratio'),
    ramAllocationRatio: ratio('ram_allocation_ratio'),
    diskAllocationRatio: ratio('disk_allocation_ratio'),
    initialCpuAllocationRatio: main.number('initial_cpu_allocation_ratio'),
    initialRamAllocationRatio: main.number('initial_ram_allocation_ratio'),
    initialDiskAllocationRatio: main.number('initial_disk_allocation_ratio'),
    updateIntervalMs: main.ms('update_resources_interval'),
    associationRefreshMs: compute.ms('resource_provider_association_refresh'),
    providerConfigLocation: compute.string('provider_config_location'),
    imageTypeExcludeList: compute.strings('image_type_exclude_list'),
    consecutiveBuildServiceDisableThreshold: compute.number('consecutive_build_service_disable_threshold'),
  };
}

function cpuSet(compute: SectionReader, name: string): readonly number[] | null {
  const text = compute.optionalString(name);
  if (text === undefined || text.trim() === '') return null;
  const ids = parseCpuSet(text);
  if (!ids) compute.complain(name, `${text} is no list of CPUs such as 4-15,^8`);
  return ids ?? null;
}

function build(options: Options, main: SectionReader): Config.BuildConfig {
  const workarounds = new SectionReader(options, 'workarounds');
  return {
    instanceNameTemplate: main.string('instance_name_template'),
    maxConcurrentBuilds: main.number('max_concurrent_builds'),
    shelvedOffloadTimeMs: main.ms('shelved_offload_time'),
    maxConcurrentSnapshots: main.number('max_concurrent_snapshots'),
    networkAllocateRetries: main.number('network_allocate_retries'),
    blockDeviceAllocateRetries: main.number('block_device_allocate_retries'),
    blockDeviceAllocateRetryIntervalMs: main.ms('block_device_allocate_retries_interval'),
    reimageTimeoutPerGibMs: main.ms('reimage_timeout_per_gb'),
    vifPluggingTimeoutMs: main.ms('vif_plugging_timeout'),
    vifPluggingIsFatal: main.boolean('vif_plugging_is_fatal'),
    defaultAccessIpNetworkName: main.optionalString('default_access_ip_network_name') ?? null,
    instanceBuildTimeoutMs: main.ms('instance_build_timeout'),
    waitForVifPluggedEventDuringHardReboot: workarounds.strings('wait_for_vif_plugged_event_during_hard_reboot'),
    disableGroupPolicyCheckUpcall: workarounds.boolean('disable_group_policy_check_upcall'),
  };
}

function metadata(options: Options, main: SectionReader): Config.MetadataConfig {
  const api = new SectionReader(options, 'api');
  const own = new SectionReader(options, 'lxd');
  const format = main.optionalString('config_drive_format') ?? 'iso9660';
  // stock nova.conf files have its default; what it means here is in docs/decisions
  if (format !== 'iso9660') main.complain('config_drive_format', `${format} is no format of ours`);
  return {
    forceConfigDrive: main.boolean('force_config_drive'),
    dhcpDomain: api.optionalString('dhcp_domain') ?? '',
    skippedEc2Versions: new Set(api.string('config_drive_skip_versions').split(/\s+/)),
    vendorData: composeVendorData(options),
    injectKey: own.boolean('inject_key'),
    injectPassword: own.boolean('inject_password'),
  };
}

function consoles(options: Options): Config.ConsoleConfig {
  const serial = new SectionReader(options, 'serial_console');
  const [firstPort = 0, endPort = 0] = serial.string('port_range').split(':').map(Number);
  if (firstPort < 1 || firstPort >= endPort || endPort > MAX_PORT + 1) {
    serial.complain('port_range', 'is the first port and the one after the last, between 1 and 65536');
  }
  return {
    tokenTtlMs: new SectionReader(options, 'consoleauth').ms('token_ttl'),
    serial: {
      enabled: serial.boolean('enabled'),
      baseUrl: serial.string('base_url'),
      proxyClientAddress: serial.string('proxyclient_address'),
      firstPort,
      endPort,
    },
  };
}

function power(options: Options, main: SectionReader): Config.PowerConfig {
  return {
    shutdownTimeoutMs: main.ms('shutdown_timeout'),
    resumeGuestsStateOnHostBoot: main.boolean('resume_guests_state_on_host_boot'),
    handleVirtLifecycleEvents: new SectionReader(options, 'workarounds').boolean('handle_virt_lifecycle_events'),
    syncIntervalMs: main.ms('sync_power_state_interval'),
    syncPoolSize: main.number('sync_power_state_pool_size'),
  };
}

function periodic(options: Options, main: SectionReader): Config.PeriodicConfig {
  const action = main.string('running_deleted_instance_action');
  return {
    schedulerInstanceSyncIntervalMs: main.ms('scheduler_instance_sync_interval'),
    trackInstanceChanges: new SectionReader(options, 'filter_scheduler').boolean('track_instance_changes'),
    runningDeletedInstanceAction: action as Config.PeriodicConfig['runningDeletedInstanceAction'],
    runningDeletedInstancePollIntervalMs: main.ms('running_deleted_instance_poll_interval'),
    runningDeletedInstanceTimeoutMs: main.ms('running_deleted_instance_timeout'),
    instanceDeleteIntervalMs: main.ms('instance_delete_interval'),
    maximumInstanceDeleteAttempts: main.number('maximum_instance_delete_attempts'),
    shelvedPollIntervalMs: main.ms('shelved_poll_interval'),
    rescueTimeoutMs: main.ms('rescue_timeout'),
    instanceUsageAudit: main.boolean('instance_usage_audit'),
    resizeConfirmWindowMs: main.ms('resize_confirm_window'),
    reclaimInstanceIntervalMs: main.ms('reclaim_instance_interval'),
  };
}

function ovs(options: Options): Config.ComputeConfig['ovs'] {
  const reader = new SectionReader(options, 'os_vif_ovs');
  const database = reader.optionalString('ovsdb_connection');
  return {
    connection: {
      timeoutSeconds: reader.number('ovs_vsctl_timeout'),
      ...(database !== undefined && { database }),
    },
    defaultMtu: reader.number('network_device_mtu'),
    isolates: reader.boolean('isolate_vif'),
  };
}
