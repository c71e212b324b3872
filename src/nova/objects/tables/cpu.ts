// Objects of CPU models and NUMA (nova-compute-contract appendix A).
/* oxlint-disable max-lines -- a data table */
import type { ObjectDefinition } from './definition.ts';

export const cpuObjects = {
  InstanceNUMATopology: {
    version: '1.3',
    fields: {
      id: 'integer',
      instance_uuid: 'string',
      cells: 'list<object<InstanceNUMACell>>',
      emulator_threads_policy: 'string?',
    },
  },
  InstanceNUMACell: {
    version: '1.6',
    fields: {
      id: 'integer',
      cpuset: 'set<integer>',
      pcpuset: 'set<integer>',
      cpuset_reserved: 'set<integer>?',
      memory: 'integer',
      pagesize: 'integer?',
      cpu_topology: 'object<VirtCPUTopology>?',
      cpu_pinning_raw: 'dict<integer>?',
      cpu_policy: 'string?',
      cpu_thread_policy: 'string?',
    },
  },
  VirtCPUTopology: {
    version: '1.0',
    fields: {
      sockets: 'integer?',
      cores: 'integer?',
      threads: 'integer?',
    },
  },
  VirtCPUModel: {
    version: '1.0',
    fields: {
      arch: 'string?',
      vendor: 'string?',
      topology: 'object<VirtCPUTopology>?',
      features: 'list<object<VirtCPUFeature>>',
      mode: 'string?',
      model: 'string?',
      match: 'string?',
    },
  },
  VirtCPUFeature: {
    version: '1.0',
    fields: {
      policy: 'string?',
      name: 'string',
    },
  },
  NUMATopology: {
    version: '1.2',
    fields: {
      cells: 'list<object<NUMACell>>',
    },
  },
  NUMACell: {
    version: '1.5',
    fields: {
      id: 'integer',
      cpuset: 'set<integer>',
      pcpuset: 'set<integer>',
      memory: 'integer',
      cpu_usage: 'integer',
      memory_usage: 'integer',
      pinned_cpus: 'set<integer>',
      siblings: 'list<set<integer>>',
      mempages: 'list<object<NUMAPagesTopology>>',
      network_metadata: 'object<NetworkMetadata>',
      socket: 'integer?',
    },
  },
  NUMAPagesTopology: {
    version: '1.1',
    fields: {
      size_kb: 'integer',
      total: 'integer',
      used: 'integer',
      reserved: 'integer',
    },
  },
  NUMATopologyLimits: {
    version: '1.1',
    fields: {
      cpu_allocation_ratio: 'float',
      ram_allocation_ratio: 'float',
      network_metadata: 'object<NetworkMetadata>',
    },
  },
  NetworkMetadata: {
    version: '1.0',
    fields: {
      physnets: 'set<string>',
      tunneled: 'boolean',
    },
  },
} as const satisfies Record<string, ObjectDefinition>;
