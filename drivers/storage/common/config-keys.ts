// Config keys that pools of several drivers have (lxd-engine-contract section 3.4).

export const commonConfigKeys = {
  source: 'Where the pool lies; what this means depends on the driver',
  'volatile.initial_source': 'The source as it was given when the pool was made',
  'volume.size': 'Size of new volumes',
  'volume.security.shifted': 'Of new custom volumes: whether containers with any id map see its owners as their own',
  'volume.security.unmapped': 'Of new custom volumes: whether no id map is applied',
  'volume.snapshots.expiry': 'Of new custom volumes: how long their snapshots are kept (1M 2H 3d 4w 5m 6y)',
  'volume.snapshots.pattern': 'Of new custom volumes: how their snapshots are named',
  'volume.snapshots.schedule': 'Of new custom volumes: when snapshots are taken (cron, or @hourly …)',
  'rsync.bwlimit':
    'Bytes a second that copies by rsync out of the pool may take, as rsync reads it: 10M (default: no limit)',
  'rsync.compression': 'Whether copies by rsync between servers are compressed on their way (default: true)',
} as const satisfies Readonly<Record<string, string>>;

/** Drivers that keep everything in directories of a file system that is there already. */
export const directoryConfigKeys = {
  ...commonConfigKeys,
  source: 'An empty directory; it is bind-mounted at the path of the pool. Without it the pool lies at its path',
} as const satisfies Readonly<Record<string, string>>;
