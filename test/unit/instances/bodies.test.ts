// Bodies of the instances' endpoints, and what is shown of instances.
import { describe, expect, it } from 'vitest';
import { merged, newInstanceRequest, replacement, stateChange } from '#src/api/instance-bodies.ts';
import { instanceView, mutableOf, stateView } from '#src/api/instance-views.ts';
import { NEVER_USED, type InstanceRecord } from '#src/engine/db/records.ts';

const record: InstanceRecord = {
  id: 1,
  project: 'default',
  name: 'c1',
  uuid: 'u',
  type: 'container',
  architecture: 'x86_64',
  ephemeral: false,
  stateful: false,
  description: 'old',
  config: { 'user.a': '1', 'user.b': '2' },
  devices: { eth0: { type: 'nic', nictype: 'p2p', mtu: '1400' } },
  profiles: ['default'],
  pool: 'default',
  createdAt: NEVER_USED,
  lastUsedAt: NEVER_USED,
};

describe('bodies', () => {
  it('empties with PUT what is not there', () => {
    expect(replacement({ description: 'new' })).toEqual({
      architecture: '',
      config: {},
      devices: {},
      ephemeral: false,
      profiles: [],
      description: 'new',
    });
  });

  it('merges with PATCH: keys win, devices are whole, empty text stays', () => {
    const patch = { config: { 'user.b': '', 'user.c': '3' }, devices: { eth0: { type: 'nic', nictype: 'p2p' } } };

    expect(merged(record, patch)).toMatchObject({
      config: { 'user.a': '1', 'user.b': '', 'user.c': '3' },
      devices: { eth0: { type: 'nic', nictype: 'p2p' } },
      description: 'old',
      profiles: ['default'],
    });
    expect(merged(record, patch).devices['eth0']).not.toHaveProperty('mtu');
  });

  it('takes a creation without profiles for one that wants the usual ones', () => {
    const request = newInstanceRequest({ name: 'c1', source: { type: 'none' }, architecture: '2' });

    expect(request).toMatchObject({ name: 'c1', source: { type: 'none' }, start: false, config: {} });
    expect(request).not.toHaveProperty('profiles');
    expect(newInstanceRequest({ profiles: [] }).profiles).toEqual([]);
  });

  it('refuses virtual machines and unknown types', () => {
    expect(() => newInstanceRequest({ type: 'virtual-machine' })).toThrow('not supported on this server');
    expect(() => newInstanceRequest({ type: 'zz' })).toThrow('Invalid instance type');
  });

  it('waits for ever for a state change that names no timeout', () => {
    expect(stateChange({ action: 'stop' })).toEqual({
      action: 'stop',
      timeoutSeconds: -1,
      force: false,
      stateful: false,
    });
    expect(() => stateChange({ action: 'fly' })).toThrow("Unknown action: 'fly'");
    expect(() => stateChange({})).toThrow("Unknown action: ''");
  });
});

describe('views', () => {
  it('shows an instance with the fields of LXD 5.0, and nothing else', () => {
    const view = instanceView({ record, expanded: { config: record.config, devices: {} }, status: 'Frozen' });

    expect(Object.keys(view)).toEqual([
      'architecture',
      'config',
      'devices',
      'ephemeral',
      'profiles',
      'stateful',
      'description',
      'created_at',
      'expanded_config',
      'expanded_devices',
      'name',
      'status',
      'status_code',
      'last_used_at',
      'location',
      'type',
      'project',
    ]);
    expect(view).toMatchObject({ status: 'Frozen', status_code: 110, location: 'none' });
  });

  it('covers with the ETag what clients may change', () => {
    expect(mutableOf(record)).toEqual(['x86_64', record.config, record.devices, false, ['default']]);
  });

  it('shows a state as LXD does', () => {
    const counters = {
      bytesReceived: 1,
      bytesSent: 2,
      packetsReceived: 3,
      packetsSent: 4,
      errorsReceived: 5,
      errorsSent: 6,
      droppedReceived: 7,
      droppedSent: 8,
    };
    const eth0 = {
      index: 2,
      name: 'eth0',
      type: 'broadcast',
      up: true,
      mtu: 1500,
      hwaddr: '00:16:3e:00:00:01',
      hostName: 'veth1',
      counters,
      addresses: [{ family: 'inet', address: '10.0.0.2', prefixLength: 24, scope: 'global' }],
    } as const;
    const memory = { usage: 1, usagePeak: 2, swapUsage: 3, swapUsagePeak: 4 };

    const view = stateView({
      status: 'Running',
      pid: 9,
      processes: 2,
      cpuNs: 5,
      memory,
      disk: { root: 7 },
      network: [eth0],
    });

    expect(view).toEqual({
      status: 'Running',
      status_code: 103,
      disk: { root: { usage: 7 } },
      memory: { usage: 1, usage_peak: 2, swap_usage: 3, swap_usage_peak: 4 },
      network: {
        eth0: {
          addresses: [{ family: 'inet', address: '10.0.0.2', netmask: '24', scope: 'global' }],
          counters: {
            bytes_received: 1,
            bytes_sent: 2,
            packets_received: 3,
            packets_sent: 4,
            errors_received: 5,
            errors_sent: 6,
            packets_dropped_outbound: 8,
            packets_dropped_inbound: 7,
          },
          hwaddr: '00:16:3e:00:00:01',
          host_name: 'veth1',
          mtu: 1500,
          state: 'up',
          type: 'broadcast',
        },
      },
      pid: 9,
      processes: 2,
      cpu: { usage: 5 },
    });
  });
});
