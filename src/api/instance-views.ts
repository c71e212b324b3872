// Instances and their state as LXD's API shows them (lxd-engine-contract section 1.4).
import type { InstanceRecord } from '#src/engine/db/records.ts';
import type { InstanceInfo } from '#src/engine/instances/instances.ts';
import type { InstanceInterface, InstanceState } from '#src/engine/instances/state.ts';

const STATUS_CODES: Readonly<Record<InstanceState['status'], number>> = {
  Stopped: 102,
  Running: 103,
  Frozen: 110,
  Error: 112,
};

/** What the ETag covers. */
export function mutableOf({ architecture, config, devices, ephemeral, profiles }: InstanceRecord): readonly unknown[] {
  return [architecture, config, devices, ephemeral, profiles];
}

export function instanceView({ record, expanded, status }: InstanceInfo): object {
  return {
    architecture: record.architecture,
    config: record.config,
    devices: record.devices,
    ephemeral: record.ephemeral,
    profiles: record.profiles,
    stateful: record.stateful,
    description: record.description,
    created_at: record.createdAt,
    expanded_config: expanded.config,
    expanded_devices: expanded.devices,
    name: record.name,
    status,
    status_code: STATUS_CODES[status],
    last_used_at: record.lastUsedAt,
    location: 'none',
    type: record.type,
    project: record.project,
  };
}

/** InstanceFull. */
export function fullView(info: InstanceInfo, state: InstanceState, snapshots: readonly object[]): object {
  return {
    ...instanceView(info),
    backups: null,
    state: stateView(state),
    snapshots: snapshots.length === 0 ? null : snapshots,
  };
}

export function stateView({ status, disk, memory, network, pid, processes, cpuNs }: InstanceState): object {
  return {
    status,
    status_code: STATUS_CODES[status],
    disk: Object.fromEntries(Object.entries(disk).map(([device, usage]) => [device, { usage }])),
    memory: {
      usage: memory.usage,
      usage_peak: memory.usagePeak,
      swap_usage: memory.swapUsage,
      swap_usage_peak: memory.swapUsagePeak,
    },
    network: network && Object.fromEntries(network.map((one) => [one.name, interfaceView(one)])),
    pid,
    processes,
    cpu: { usage: cpuNs },
  };
}

function interfaceView({ addresses, counters, hwaddr, hostName, mtu, up, type }: InstanceInterface): object {
  return {
    addresses: addresses.map(({ family, address, prefixLength, scope }) => {
      return { family, address, netmask: String(prefixLength), scope };
    }),
    counters: {
      bytes_received: counters.bytesReceived,
      bytes_sent: counters.bytesSent,
      packets_received: counters.packetsReceived,
      packets_sent: counters.packetsSent,
      errors_received: counters.errorsReceived,
      errors_sent: counters.errorsSent,
      packets_dropped_outbound: counters.droppedSent,
      packets_dropped_inbound: counters.droppedReceived,
    },
    hwaddr,
    host_name: hostName,
    mtu,
    state: up ? 'up' : 'down',
    type,
  };
}
