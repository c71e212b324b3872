// What each operation comes to while a service is away, and when it answers 500 (behind the bar, where that differs). A service that is
// not named here is not asked, or changes nothing by being away. Compared with a stock compute in docs/compatibility.md.
import type { ServiceName } from './outage.ts';

export type Outcomes = Readonly<Record<string, Partial<Record<ServiceName, string>>>>;

export const OUTCOMES: Outcomes = {
  build_and_run_instance: {
    engine:
      'error, guest none, no host, no allocation: Build of instance ID aborted: connection refused | error, guest none, no host, no allocation: Build of instance ID aborted: OpenStackError',
    glance: 'building, scheduling, guest none, no host, no allocation',
    neutron:
      'error, guest none, no host, no allocation: Build of instance ID aborted: Failed to allocate the network(s), not rescheduling.',
    keystone:
      'error, guest none, no host: Build of instance ID aborted: Failed to allocate the network(s), not rescheduling.',
    conductor: 'building, scheduling, guest none, no host, no allocation',
  },
  stop_instance: {
    engine: 'active, guest runs: the class of the error',
    conductor: 'active, powering-off, guest runs',
  },
  start_instance: {
    engine: 'stopped, guest off: the class of the error',
    neutron: 'stopped, guest off: the class of the error',
    keystone: 'stopped, guest off: the class of the error',
    conductor: 'stopped, powering-on, guest off',
  },
  reboot_instance: {
    engine: 'active, guest runs: the class of the error',
    neutron: 'active, guest runs: the class of the error',
    keystone: 'active, guest runs: the class of the error',
    conductor: 'active, rebooting_hard, guest runs',
  },
  'reboot_instance, soft': {
    engine: 'active, guest runs: the class of the error',
    neutron: 'active, guest runs: the class of the error',
    keystone: 'active, guest runs: the class of the error',
    conductor: 'active, rebooting, guest runs',
  },
  pause_instance: {
    engine: 'active, guest runs: the class of the error',
    conductor: 'active, pausing, guest runs',
  },
  unpause_instance: {
    engine: 'paused, guest paused: the class of the error',
    conductor: 'paused, unpausing, guest paused',
  },
  suspend_instance: {
    engine: 'error, guest runs: the class of the error',
    conductor: 'active, suspending, guest runs',
  },
  resume_instance: {
    engine: 'error, guest paused: the class of the error',
    conductor: 'suspended, resuming, guest paused',
  },
  soft_delete_instance: {
    engine:
      'active, guest runs: Failed to power off the instance: connection refused | active, guest runs: Failed to power off the instance: engine: 500',
    conductor: 'active, soft-deleting, guest runs',
  },
  restore_instance: {
    engine: 'soft-delete, guest off: the class of the error',
    neutron: 'soft-delete, guest off: the class of the error',
    keystone: 'soft-delete, guest off: the class of the error',
    conductor: 'soft-delete, restoring, guest off',
  },
  terminate_instance: {
    engine: 'error, guest runs: the class of the error',
    neutron: 'error, guest none: the class of the error',
    placement: 'error, guest none: the class of the error',
    keystone: 'error, guest none: the class of the error',
    conductor: 'active, deleting, guest runs',
  },
  set_admin_password: {
    engine: 'active, guest runs: the class of the error',
    conductor: 'active, updating_password, guest runs',
  },
  snapshot_instance: {
    engine: 'active, guest runs: the class of the error',
    glance: 'active, guest runs: the class of the error',
    conductor: 'active, image_snapshot_pending, guest runs',
  },
  backup_instance: {
    engine: 'active, guest runs: the class of the error',
    glance: 'active, guest runs: the class of the error',
    conductor: 'active, image_backup, guest runs',
  },
  shelve_instance: {
    engine: 'active, guest runs: the class of the error',
    glance: 'active, guest runs: the class of the error',
    neutron: 'shelved, guest off: the class of the error',
    placement: 'shelved, guest none: the class of the error',
    keystone: 'shelved, guest off: the class of the error',
    conductor: 'active, shelving, guest runs',
  },
  shelve_offload_instance: {
    engine:
      'shelved, guest off: Failed to power off the instance: connection refused | shelved, guest off: Failed to power off the instance: engine: 500',
    neutron: 'shelved, guest off: the class of the error',
    placement: 'shelved, guest none: the class of the error',
    keystone: 'shelved, guest off: the class of the error',
    conductor: 'shelved, shelving_offloading, guest off',
  },
  unshelve_instance: {
    engine: 'shelved_offloaded, guest none, no host, no allocation: the class of the error',
    neutron: 'shelved_offloaded, guest none, no host, no allocation: the class of the error',
    keystone: 'shelved_offloaded, guest none, no host: the class of the error',
    conductor: 'shelved_offloaded, unshelving, guest none, no host',
  },
  rescue_instance: {
    engine:
      'error, guest runs: Instance ID cannot be rescued: Driver Error: Failed to power off the instance: connection refused | error, guest runs: Instance ID cannot be rescued: Driver Error: Failed to power off the instance: engine: 500',
    glance: 'active, guest runs: the class of the error',
    neutron: 'active, guest runs: the class of the error',
    keystone: 'active, guest runs: the class of the error',
    conductor: 'active, rescuing, guest runs',
  },
  unrescue_instance: {
    engine: 'error, guest runs in rescue: the class of the error',
    neutron: 'rescued, guest runs in rescue: the class of the error',
    keystone: 'rescued, guest runs in rescue: the class of the error',
    conductor: 'rescued, unrescuing, guest runs in rescue',
  },
  rebuild_instance: {
    engine: 'active, guest runs: the class of the error',
    glance: 'active, guest runs: the class of the error',
    neutron: 'error, guest runs: the class of the error',
    keystone: 'error, guest runs: the class of the error',
    conductor: 'active, rebuilding, guest runs',
  },
  attach_interface: {
    engine: 'active, guest runs: Failed to attach a network interface to instance ID',
    neutron: 'active, guest runs: the class of the error',
    keystone: 'active, guest runs: the class of the error',
  },
  detach_interface: {
    engine: 'active, guest runs: Failed to detach a network interface from instance ID',
    neutron: 'active, guest runs: the class of the error',
  },
  attach_volume: {
    engine:
      'active, guest runs: Volume ID could not be attached: connection refused | active, guest runs: Volume ID could not be attached: an internal error',
    cinder:
      'active, guest runs: Volume ID could not be attached: connection refused | active, guest runs: Volume ID could not be attached: an internal error',
  },
  detach_volume: {
    engine:
      'active, guest runs: Volume ID could not be detached: connection refused | active, guest runs: Volume ID could not be detached: an internal error',
    cinder: 'active, guest runs: the class of the error',
  },
  'resize on this host': {
    engine:
      'error, guest runs and none, move error: Failed to power off the instance: connection refused | error, guest runs and none, move error: Failed to power off the instance: engine: 500',
    neutron: 'active, guest runs and none, move error: the class of the error',
    keystone: 'active, guest runs and none, move error: the class of the error',
    conductor: 'active, resize_prep, guest runs and none, move accepted',
  },
  'move to another host': {
    engine:
      'error, guest runs and none, move error: Failed to power off the instance: connection refused | error, guest runs and none, move error: Failed to power off the instance: engine: 500',
    neutron: 'active, guest runs and none, move error: the class of the error',
    keystone: 'active, guest runs and none, move error: the class of the error',
    conductor: 'active, resize_prep, guest runs and none, move accepted',
  },
  'resize on this host, confirmed': {
    engine: 'error, guest runs and none, move error: the class of the error',
    conductor: 'resized, guest runs and none, move confirming',
  },
  'resize on this host, reverted': {
    engine:
      'error, guest runs and none, move error: Failed to power off the instance: connection refused | error, guest runs and none, move error: Failed to power off the instance: engine: 500',
    neutron: 'error, guest runs and none, move error: the class of the error',
    placement: 'error, guest off and none, move error: the class of the error',
    keystone: 'error, guest runs and none, move error: the class of the error',
    conductor: 'resized, resize_reverting, guest runs and none, move reverting',
  },
  'move, confirmed': {
    engine: 'error, guest off and runs, move error: the class of the error',
    conductor: 'resized, guest off and runs, move confirming',
  },
  'move, reverted': {
    engine: 'error, guest off and runs, move error: the class of the error',
    neutron: 'error, guest off and runs, move error: the class of the error',
    placement: 'error, guest off and none, move error: the class of the error',
    keystone: 'error, guest off and runs, move error: the class of the error',
    conductor: 'resized, resize_reverting, guest off and runs, move reverting',
  },
  evacuation: {
    engine: 'error, guest runs and none, move failed: the class of the error',
    glance: 'error, guest runs and none, move failed: the class of the error',
    neutron: 'error, guest runs and none, move failed: the class of the error',
    keystone: 'error, guest runs and none, move failed: the class of the error',
    conductor: 'active, rebuilding, guest runs and none, move accepted',
  },
};
