// Objects of consoles, diagnostics, cells and task logs (nova-compute-contract appendix A).
/* oxlint-disable max-lines -- a data table */
import type { ObjectDefinition } from './definition.ts';

export const othersObjects = {
  ConsoleAuthToken: {
    version: '1.1',
    stamps: 'timestamps',
    fields: {
      id: 'integer',
      console_type: 'string',
      host: 'string',
      port: 'integer',
      internal_access_path: 'string?',
      instance_uuid: 'string',
      access_url_base: 'string?',
      token: 'string',
      tls_port: 'integer? since 2025.1',
      expires: 'integer since 2024.1',
    },
  },
  TaskLog: {
    version: '1.0',
    stamps: 'persistent',
    fields: {
      id: 'integer',
      task_name: 'string',
      state: 'string',
      host: 'string',
      period_beginning: 'datetime',
      period_ending: 'datetime',
      message: 'string',
      task_items: 'integer',
      errors: 'integer',
    },
  },
  TaskLogList: {
    version: '1.0',
    fields: {
      objects: 'list<object<TaskLog>>',
    },
  },
  Diagnostics: {
    version: '1.0',
    fields: {
      state: 'string',
      driver: 'string',
      hypervisor: 'string?',
      hypervisor_os: 'string?',
      uptime: 'integer?',
      config_drive: 'boolean',
      memory_details: 'object<MemoryDiagnostics>',
      cpu_details: 'list<object<CpuDiagnostics>>',
      nic_details: 'list<object<NicDiagnostics>>',
      disk_details: 'list<object<DiskDiagnostics>>',
      num_cpus: 'integer',
      num_nics: 'integer',
      num_disks: 'integer',
    },
  },
  CpuDiagnostics: {
    version: '1.0',
    fields: {
      id: 'integer?',
      time: 'integer?',
      utilisation: 'integer?',
    },
  },
  NicDiagnostics: {
    version: '1.0',
    fields: {
      mac_address: 'string?',
      rx_octets: 'integer?',
      rx_errors: 'integer?',
      rx_drop: 'integer?',
      rx_packets: 'integer?',
      rx_rate: 'integer?',
      tx_octets: 'integer?',
      tx_errors: 'integer?',
      tx_drop: 'integer?',
      tx_packets: 'integer?',
      tx_rate: 'integer?',
    },
  },
  DiskDiagnostics: {
    version: '1.0',
    fields: {
      read_bytes: 'integer?',
      read_requests: 'integer?',
      write_bytes: 'integer?',
      write_requests: 'integer?',
      errors_count: 'integer?',
    },
  },
  MemoryDiagnostics: {
    version: '1.0',
    fields: {
      maximum: 'integer?',
      used: 'integer?',
    },
  },
  CellMapping: {
    version: '1.1',
    stamps: 'timestamps',
    fields: {
      id: 'integer',
      uuid: 'string',
      name: 'string?',
      transport_url: 'string',
      database_connection: 'string',
      disabled: 'boolean',
    },
  },
  InstanceMapping: {
    version: '1.2',
    stamps: 'timestamps',
    fields: {
      id: 'integer',
      instance_uuid: 'string',
      cell_mapping: 'object<CellMapping>?',
      project_id: 'string',
      user_id: 'string',
      queued_for_delete: 'boolean',
    },
  },
  HostMapping: {
    version: '1.0',
    stamps: 'timestamps',
    fields: {
      id: 'integer',
      host: 'string',
      cell_mapping: 'object<CellMapping>',
    },
  },
  BuildRequest: {
    version: '1.3',
    fields: {
      id: 'integer',
      instance_uuid: 'string',
      project_id: 'string',
      instance: 'object<Instance>',
      block_device_mappings: 'object<BlockDeviceMappingList>',
      created_at: 'datetime?',
      updated_at: 'datetime?',
      tags: 'object<TagList>',
    },
  },
} as const satisfies Record<string, ObjectDefinition>;
