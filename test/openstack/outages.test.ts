// Services that are away or answer 500: what the user then sees on a real Nova, and that everything can be deleted without a trace when
// they are back.
import { type Cell, describeOutages, measureOutages } from './lab/outage-cells.ts';

const NO_NETWORK = 'Build of instance ID aborted: Failed to allocate the network(s), not rescheduling.';

const CELLS: readonly Cell[] = [
  ['create', 'neutron', 'answers 500', `ERROR, fault "${NO_NETWORK}"`],
  ['create', 'keystone', 'is down', `ERROR, fault "${NO_NETWORK}"`],
  ['hard reboot', 'engine', 'answers 500', 'ACTIVE, compute_reboot_instance Error'],
  ['hard reboot', 'neutron', 'answers 500', 'ACTIVE, compute_reboot_instance Error'],
  ['stop', 'engine', 'answers 500', 'ACTIVE, compute_stop_instance Error'],
  ['suspend', 'engine', 'answers 500', 'ERROR, compute_suspend_instance Error, fault "EngineError"'],
  ['snapshot', 'glance', 'answers 500', 'ACTIVE, compute_snapshot_instance Error'],
  ['unshelve', 'glance', 'answers 500', 'SHELVED_OFFLOADED, compute_unshelve_instance Error'],
  ['resize', 'neutron', 'answers 500', 'ACTIVE, compute_resize_instance Error'],
  ['confirm', 'neutron', 'is down', 'ACTIVE'],
  ['confirm', 'placement', 'answers 500', 'ACTIVE'],
  ['attach volume', 'cinder', 'answers 500', 'ACTIVE, compute_attach_volume Error'],
  ['delete', 'placement', 'is down', 'ERROR, compute_terminate_instance Error, fault "OpenStackError"'],
  ['start', 'keystone', 'is down', 'SHUTOFF, compute_start_instance Error'],
];

describeOutages(CELLS, 60_000);
const wanted = process.env['OUTAGE_CELLS'];
if (wanted !== undefined) measureOutages(wanted);
