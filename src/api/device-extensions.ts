// What is announced of devices and of the socket inside of instances.

export const DEVICE_EXTENSIONS: readonly string[] = [
  'instance_nic_network',
  'restrict_devlxd',
  'devlxd_events',
  'devlxd_images',
  'container_disk_shift',
  // `shift` of a disk works wherever kernel_features has idmapped_mounts.
  'lighter_disk_shift',
  'container_raw_mount',
  'unix_device_rename',
  'container_nic_routes',
  'container_nic_ipfilter',
  'container_nic_routed',
  'container_nic_routed_gateway',
  'container_nic_routed_host_address',
  'container_nic_routed_host_table',
  'container_nic_routed_limits',
  'instance_nic_bridged_port_isolation',
  'instance_nic_routed_neighbor_probe',
  // A disk device with a pool and the source `container/NAME`: the root of a stopped instance in another one.
  'lighter_disk_instance_root',
  // `lighter.sysfs.block`: unless it is false, an instance's /sys/block lists the block devices that it was given.
  'lighter_sysfs_block',
  // `lighter.pause.silent`: a paused instance answers nobody on the network.
  'lighter_pause_silent',
  // A root disk with `lighter.block`, the path of a device or file of the host that it lies on (docs/decisions/0013).
  'lighter_root_block',
  // A disk with `lighter.served`: the ext file system of a device or file of the host, served by a process without rights.
  'lighter_disk_served',
];
