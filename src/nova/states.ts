// The words that Nova stores and compares: states, actions and events (nova-compute-contract appendix D.1).

export const VM_STATES = {
  active: 'active',
  building: 'building',
  paused: 'paused',
  suspended: 'suspended',
  stopped: 'stopped',
  rescued: 'rescued',
  resized: 'resized',
  softDelete: 'soft-delete',
  deleted: 'deleted',
  error: 'error',
  shelved: 'shelved',
  shelvedOffloaded: 'shelved_offloaded',
} as const;

/** "No task" is null, in the database and on the wire. */
export const TASK_STATES = {
  scheduling: 'scheduling',
  blockDeviceMapping: 'block_device_mapping',
  networking: 'networking',
  spawning: 'spawning',
  imageSnapshot: 'image_snapshot',
  imageSnapshotPending: 'image_snapshot_pending',
  imagePendingUpload: 'image_pending_upload',
  imageUploading: 'image_uploading',
  imageBackup: 'image_backup',
  updatingPassword: 'updating_password',
  resizePrep: 'resize_prep',
  resizeMigrating: 'resize_migrating',
  resizeMigrated: 'resize_migrated',
  resizeFinish: 'resize_finish',
  resizeReverting: 'resize_reverting',
  resizeConfirming: 'resize_confirming',
  rebooting: 'rebooting',
  rebootPending: 'reboot_pending',
  rebootStarted: 'reboot_started',
  rebootingHard: 'rebooting_hard',
  rebootPendingHard: 'reboot_pending_hard',
  rebootStartedHard: 'reboot_started_hard',
  pausing: 'pausing',
  unpausing: 'unpausing',
  suspending: 'suspending',
  resuming: 'resuming',
  poweringOff: 'powering-off',
  poweringOn: 'powering-on',
  rescuing: 'rescuing',
  unrescuing: 'unrescuing',
  rebuilding: 'rebuilding',
  rebuildBlockDeviceMapping: 'rebuild_block_device_mapping',
  rebuildSpawning: 'rebuild_spawning',
  migrating: 'migrating',
  deleting: 'deleting',
  softDeleting: 'soft-deleting',
  restoring: 'restoring',
  shelving: 'shelving',
  shelvingImagePendingUpload: 'shelving_image_pending_upload',
  shelvingImageUploading: 'shelving_image_uploading',
  shelvingOffloading: 'shelving_offloading',
  unshelving: 'unshelving',
} as const;

/** Instance.power_state. */
export const POWER_STATES = { nostate: 0, running: 1, paused: 3, shutdown: 4, crashed: 6, suspended: 7 } as const;
export type PowerState = (typeof POWER_STATES)[keyof typeof POWER_STATES];

const POWER_STATE_NAMES = new Map<number, string>([
  [POWER_STATES.nostate, 'pending'],
  [POWER_STATES.running, 'running'],
  [POWER_STATES.paused, 'paused'],
  [POWER_STATES.shutdown, 'shutdown'],
  [POWER_STATES.crashed, 'crashed'],
  [POWER_STATES.suspended, 'suspended'],
]);

/** The name of a power state in versioned notifications and diagnostics. */
export function powerStateName(state: number): string | undefined {
  return POWER_STATE_NAMES.get(state);
}

export const MIGRATION_STATUSES = {
  accepted: 'accepted',
  preMigrating: 'pre-migrating',
  queued: 'queued',
  preparing: 'preparing',
  running: 'running',
  migrating: 'migrating',
  postMigrating: 'post-migrating',
  finished: 'finished',
  reverting: 'reverting',
  confirming: 'confirming',
  confirmed: 'confirmed',
  reverted: 'reverted',
  done: 'done',
  completed: 'completed',
  error: 'error',
  failed: 'failed',
  cancelled: 'cancelled',
} as const;

export const MIGRATION_TYPES = {
  migration: 'migration',
  resize: 'resize',
  liveMigration: 'live-migration',
  evacuation: 'evacuation',
} as const;

/** Names of the InstanceActions that the API records and a compute may look for or start itself. */
export const ACTIONS = {
  create: 'create',
  delete: 'delete',
  evacuate: 'evacuate',
  restore: 'restore',
  stop: 'stop',
  start: 'start',
  reboot: 'reboot',
  rebuild: 'rebuild',
  confirmResize: 'confirmResize',
  revertResize: 'revertResize',
  resize: 'resize',
  migrate: 'migrate',
  pause: 'pause',
  unpause: 'unpause',
  suspend: 'suspend',
  resume: 'resume',
  rescue: 'rescue',
  unrescue: 'unrescue',
  changePassword: 'changePassword',
  shelve: 'shelve',
  shelveOffload: 'shelveOffload',
  unshelve: 'unshelve',
  liveMigration: 'live-migration',
  attachInterface: 'attach_interface',
  detachInterface: 'detach_interface',
  attachVolume: 'attach_volume',
  detachVolume: 'detach_volume',
  extendVolume: 'extend_volume',
} as const;

/** RPC methods whose InstanceActionEvent is not simply `compute_` and the method's name. */
const EVENT_OF_METHOD: Readonly<Record<string, string>> = {
  build_and_run_instance: 'compute__do_build_and_run_instance',
};

/** The InstanceActionEvent under which an RPC method reports. */
export function eventNameOf(rpcMethod: string): string {
  return EVENT_OF_METHOD[rpcMethod] ?? `compute_${rpcMethod}`;
}
