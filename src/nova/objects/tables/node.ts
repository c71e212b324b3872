// Objects of the service and its compute node (nova-compute-contract appendix A).
/* oxlint-disable max-lines -- a data table */
import type { ObjectDefinition } from './definition.ts';

export const nodeObjects = {
  Service: {
    version: '1.22',
    stamps: 'persistent',
    fields: {
      id: 'integer',
      uuid: 'string',
      host: 'string?',
      binary: 'string?',
      topic: 'string?',
      report_count: 'integer',
      disabled: 'boolean',
      disabled_reason: 'string?',
      availability_zone: 'string?',
      compute_node: 'object<ComputeNode>',
      last_seen_up: 'datetime?',
      forced_down: 'boolean',
      version: 'integer',
    },
  },
  ServiceList: {
    version: '1.19',
    fields: {
      objects: 'list<object<Service>>',
    },
  },
  ComputeNode: {
    version: '1.19',
    stamps: 'persistent',
    fields: {
      id: 'integer',
      uuid: 'string',
      service_id: 'integer?',
      host: 'string?',
      vcpus: 'integer',
      memory_mb: 'integer',
      local_gb: 'integer',
      vcpus_used: 'integer',
      memory_mb_used: 'integer',
      local_gb_used: 'integer',
      hypervisor_type: 'string',
      hypervisor_version: 'integer',
      hypervisor_hostname: 'string?',
      free_ram_mb: 'integer?',
      free_disk_gb: 'integer?',
      current_workload: 'integer?',
      running_vms: 'integer?',
      cpu_info: 'string?',
      disk_available_least: 'integer?',
      metrics: 'string?',
      stats: 'dict<string?>?',
      host_ip: 'string?',
      numa_topology: 'string?',
      supported_hv_specs: 'list<object<HVSpec>>',
      pci_device_pools: 'object<PciDevicePoolList>?',
      cpu_allocation_ratio: 'float',
      ram_allocation_ratio: 'float',
      disk_allocation_ratio: 'float',
      mapped: 'integer',
    },
  },
  ComputeNodeList: {
    version: '1.17',
    fields: {
      objects: 'list<object<ComputeNode>>',
    },
  },
  HVSpec: {
    version: '1.2',
    fields: {
      arch: 'string',
      hv_type: 'string',
      vm_mode: 'string',
    },
  },
  PciDevicePool: {
    version: '1.1',
    fields: {
      product_id: 'string',
      vendor_id: 'string',
      numa_node: 'integer?',
      tags: 'dict<string?>',
      count: 'integer',
    },
  },
  PciDevicePoolList: {
    version: '1.1',
    fields: {
      objects: 'list<object<PciDevicePool>>',
    },
  },
  MonitorMetric: {
    version: '1.1',
    fields: {
      name: 'string',
      value: 'integer',
      numa_membw_values: 'dict<integer>?',
      timestamp: 'datetime',
      source: 'string',
    },
  },
  MonitorMetricList: {
    version: '1.1',
    fields: {
      objects: 'list<object<MonitorMetric>>',
    },
  },
} as const satisfies Record<string, ObjectDefinition>;
