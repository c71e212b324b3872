// Objects of device metadata and PCI devices (nova-compute-contract appendix A).
/* oxlint-disable max-lines -- a data table */
import type { ObjectDefinition } from './definition.ts';

export const devicesObjects = {
  InstanceDeviceMetadata: {
    version: '1.0',
    fields: {
      devices: 'list<object<DeviceMetadata+>>',
    },
  },
  DeviceMetadata: {
    version: '1.0',
    fields: {
      bus: 'object<DeviceBus+>',
      tags: 'list<string>',
    },
  },
  NetworkInterfaceMetadata: {
    version: '1.2',
    extends: 'DeviceMetadata',
    fields: {
      mac: 'string',
      vlan: 'integer',
      vf_trusted: 'boolean',
    },
  },
  DiskMetadata: {
    version: '1.0',
    extends: 'DeviceMetadata',
    fields: {
      serial: 'string?',
      path: 'string?',
    },
  },
  ShareMetadata: {
    version: '1.0',
    since: '2025.1',
    extends: 'DeviceMetadata',
    fields: {
      share_id: 'string?',
      tag: 'string?',
    },
  },
  DeviceBus: {
    version: '1.0',
    fields: {},
  },
  PCIDeviceBus: {
    version: '1.0',
    extends: 'DeviceBus',
    fields: {
      address: 'string',
    },
  },
  USBDeviceBus: {
    version: '1.0',
    extends: 'DeviceBus',
    fields: {
      address: 'string',
    },
  },
  SCSIDeviceBus: {
    version: '1.0',
    extends: 'DeviceBus',
    fields: {
      address: 'string',
    },
  },
  IDEDeviceBus: {
    version: '1.0',
    extends: 'DeviceBus',
    fields: {
      address: 'string',
    },
  },
  XenDeviceBus: {
    version: '1.0',
    extends: 'DeviceBus',
    fields: {
      address: 'string',
    },
  },
  PciDevice: {
    version: '1.7',
    stamps: 'persistent',
    fields: {
      id: 'integer',
      uuid: 'string',
      compute_node_id: 'integer?',
      address: 'string',
      vendor_id: 'string',
      product_id: 'string',
      dev_type: 'string',
      status: 'string',
      dev_id: 'string?',
      label: 'string?',
      instance_uuid: 'string?',
      request_id: 'string?',
      extra_info: 'dict<string>',
      numa_node: 'integer?',
      parent_addr: 'string?',
    },
  },
  PciDeviceList: {
    version: '1.3',
    fields: {
      objects: 'list<object<PciDevice>>',
    },
  },
  InstancePCIRequest: {
    version: '1.4',
    fields: {
      count: 'integer',
      spec: 'list<dict<string?>>',
      alias_name: 'string?',
      is_new: 'boolean',
      request_id: 'string?',
      requester_id: 'string?',
      numa_policy: 'string?',
    },
  },
  InstancePCIRequests: {
    version: '1.1',
    fields: {
      instance_uuid: 'string',
      requests: 'list<object<InstancePCIRequest>>',
    },
  },
} as const satisfies Record<string, ObjectDefinition>;
