// Every operation of the API on an instance, prepared up to the moment when the message comes to the compute.
import { ComputeHarness, buildArgs, IMAGE, instanceOf, networkRequests, object } from '#test/fakes/compute-harness.ts';
import { flavorOf, SOURCE, TARGET, TwoComputes } from '#test/fakes/moving.ts';

type Json = Readonly<Record<string, any>>;

export interface Scene extends AsyncDisposable {
  /** All hosts that take part, the instance's first. */
  readonly computes: readonly [ComputeHarness, ...ComputeHarness[]];
  readonly instance: Json;
  /** Rejects as the messaging server would see it. */
  readonly perform: () => Promise<unknown>;
}

interface Operation {
  /** Of the row when the API has prepared it. */
  readonly state: Json;
  readonly args?: (harness: ComputeHarness, instance: Json) => Json | Promise<Json>;
  readonly method?: string;
  /** The guest is off before. */
  readonly isOff?: boolean;
  readonly before?: (harness: ComputeHarness, instance: Json) => Promise<void>;
}

const NOTHING = { network_id: null, port_id: null, requested_ip: null, tag: null };
const soon = (): AbortSignal => AbortSignal.timeout(1000);
const uuidOf = (instance: Json): string => instance['nova_object.data'].uuid;
const portOf = (harness: ComputeHarness): string => [...harness.neutron.ports.keys()][0] ?? '';
const pause = (harness: ComputeHarness, instance: Json) => harness.virt.pause(uuidOf(instance), soon());
const stored = (harness: ComputeHarness, instance: Json): Json => instanceOf(harness.row(instance));

const RESCUE = { rescue_password: 'x', rescue_image_ref: 'new', clean_shutdown: false };
const RESERVE = { device: null, disk_bus: null, device_type: null, tag: null, multiattach: false };
const SHELVED = { shelved_at: '2026-01-01T00:00:00.000000', shelved_image_id: 'snap', shelved_host: SOURCE };

/** A block device as the API leaves it, of a volume that is reserved. */
async function reserved(harness: ComputeHarness, instance: Json): Promise<Json> {
  const { id: volumeId } = harness.cinder.addVolume();
  const wish = { ...RESERVE, instance, volume_id: volumeId };
  const device = (await harness.send('reserve_block_device_name', wish)) as Json;
  const attachment = harness.cinder.reserve(volumeId, uuidOf(instance));
  const row = harness.plane.blockDevices.find(({ id }) => id === device['nova_object.data'].id);
  if (row) row['attachment_id'] = attachment;
  return object('BlockDeviceMapping', '1.21', { ...device['nova_object.data'], attachment_id: attachment });
}

const ON_ONE_HOST: Readonly<Record<string, Operation>> = {
  stop_instance: { state: { task_state: 'powering-off' }, args: () => ({ clean_shutdown: false }) },
  start_instance: { state: { vm_state: 'stopped', task_state: 'powering-on' }, isOff: true },
  reboot_instance: { state: { task_state: 'rebooting_hard' }, args: () => ({ reboot_type: 'HARD' }) },
  'reboot_instance, soft': {
    method: 'reboot_instance',
    state: { task_state: 'rebooting' },
    args: () => ({ reboot_type: 'SOFT' }),
  },
  pause_instance: { state: { task_state: 'pausing' } },
  unpause_instance: { state: { vm_state: 'paused', task_state: 'unpausing' }, before: pause },
  suspend_instance: { state: { task_state: 'suspending' } },
  resume_instance: { state: { vm_state: 'suspended', task_state: 'resuming' }, before: pause },
  soft_delete_instance: { state: { task_state: 'soft-deleting' } },
  restore_instance: { state: { vm_state: 'soft-delete', task_state: 'restoring' }, isOff: true },
  terminate_instance: { state: { task_state: 'deleting' }, args: () => ({ bdms: null }) },
  set_admin_password: { state: { task_state: 'updating_password' }, args: () => ({ new_pass: 'secret' }) },
  snapshot_instance: { state: { task_state: 'image_snapshot_pending' }, args: () => ({ image_id: 'snap' }) },
  backup_instance: {
    state: { task_state: 'image_backup' },
    args: () => ({ image_id: 'snap', backup_type: 'daily', rotation: 1 }),
  },
  shelve_instance: { state: { task_state: 'shelving' }, args: () => ({ image_id: 'snap', clean_shutdown: false }) },
  shelve_offload_instance: {
    state: { vm_state: 'shelved', task_state: 'shelving_offloading', system_metadata: SHELVED },
    isOff: true,
    args: () => ({ clean_shutdown: false }),
  },
  unshelve_instance: {
    state: { task_state: 'unshelving' },
    before: async (harness, instance) => {
      harness.row(instance)['task_state'] = 'shelving';
      const args = { image_id: 'snap', clean_shutdown: false };
      await harness.send('shelve_instance', { instance: stored(harness, instance), ...args });
      // the scheduler has given it this host
      harness.placement.consumers.add(uuidOf(instance));
    },
    args: () => ({ image: { ...IMAGE, id: 'snap' } }),
  },
  rescue_instance: { state: { task_state: 'rescuing' }, args: () => RESCUE },
  unrescue_instance: {
    state: { task_state: 'unrescuing' },
    before: async (harness, instance) => {
      harness.row(instance)['task_state'] = 'rescuing';
      await harness.send('rescue_instance', { instance: stored(harness, instance), ...RESCUE });
    },
  },
  rebuild_instance: {
    state: { task_state: 'rebuilding', image_ref: 'new' },
    args: () => ({
      image_ref: 'new',
      orig_image_ref: 'image-1',
      orig_sys_metadata: {},
      injected_files: [],
      bdms: null,
    }),
  },
  attach_interface: {
    state: {},
    args: ({ neutron }) => ({ ...NOTHING, network_id: neutron.addNetwork({ name: 'second' }).id }),
  },
  detach_interface: { state: {}, args: (harness) => ({ port_id: portOf(harness) }) },
  attach_volume: { state: {}, args: async (harness, instance) => ({ bdm: await reserved(harness, instance) }) },
  detach_volume: {
    state: {},
    args: async (harness, instance) => {
      const bdm = await reserved(harness, instance);
      await harness.send('attach_volume', { instance, bdm });
      const { volume_id: volumeId, attachment_id: attachment } = bdm['nova_object.data'];
      return { volume_id: volumeId, attachment_id: attachment };
    },
  },
  'network-changed': {
    method: 'external_instance_event',
    state: {},
    args: (harness, instance) => {
      const fields = { instance_uuid: uuidOf(instance), name: 'network-changed', status: 'completed' };
      const event = object('InstanceExternalEvent', '1.5', { ...fields, tag: portOf(harness), data: {} });
      return { instances: [instance], events: [event] };
    },
  },
};

function forget({ plane, glance }: ComputeHarness): void {
  for (const list of [plane.events, plane.faults, plane.sent, plane.casts]) list.length = 0;
  if (!glance.images.has('snap')) glance.addQueued('snap');
}

async function onOneHost({ state, args, method, isOff = false, before }: Operation, name: string): Promise<Scene> {
  const harness = new ComputeHarness();
  const built = instanceOf();
  const network = harness.neutron.addNetwork({ tenant_id: 'project' });
  harness.glance.addActive('new');
  harness.glance.addQueued('snap');
  await harness.build(built, { requested_networks: networkRequests({ network_id: network.id }) });
  if (isOff) await harness.virt.powerOff(uuidOf(built), { graceSeconds: 0 }, soon());
  await before?.(harness, stored(harness, built));
  Object.assign(harness.row(built), state);
  const instance = stored(harness, built);
  const message = { instance, ...(await args?.(harness, instance)) };
  forget(harness);
  return {
    computes: [harness],
    instance,
    perform: () => harness.send(method ?? name, message),
    [Symbol.asyncDispose]: () => harness[Symbol.asyncDispose](),
  };
}

export async function building(): Promise<Scene> {
  const harness = new ComputeHarness();
  const instance = instanceOf();
  const network = harness.neutron.addNetwork({ tenant_id: 'project' });
  harness.plane.add(instance);
  harness.placement.consumers.add(uuidOf(instance));
  const requested = { requested_networks: networkRequests({ network_id: network.id }) };
  return {
    computes: [harness],
    instance,
    async perform() {
      await harness.send('build_and_run_instance', buildArgs(instance, requested));
      await harness.operations.drain(AbortSignal.timeout(3600_000));
    },
    [Symbol.asyncDispose]: () => harness[Symbol.asyncDispose](),
  };
}

type Play = (computes: TwoComputes, instance: Json) => Promise<unknown>;

async function onTwoHosts(fields: Json, before: Play, perform: Play): Promise<Scene> {
  const computes = new TwoComputes();
  const instance = await computes.server(fields);
  for (const { glance } of [computes.source, computes.target]) glance.addActive('image-1');
  await before(computes, instance);
  for (const compute of [computes.source, computes.target]) forget(compute);
  return {
    computes: [computes.source, computes.target],
    instance,
    perform: () => perform(computes, instance),
    [Symbol.asyncDispose]: () => computes[Symbol.asyncDispose](),
  };
}

async function resizeHere(computes: TwoComputes, instance: Json): Promise<void> {
  await computes.source.send('prep_resize', {
    instance,
    flavor: flavorOf(2),
    image: {},
    request_spec: null,
    filter_properties: {},
    node: SOURCE,
    migration: computes.migration(instance),
    clean_shutdown: true,
    host_list: [],
  });
  await computes.deliver();
}

async function evacuate(computes: TwoComputes, instance: Json): Promise<void> {
  await computes.target.send('rebuild_instance', {
    instance: computes.stored(instance),
    image_ref: 'image-1',
    orig_image_ref: 'image-1',
    orig_sys_metadata: null,
    injected_files: [],
    bdms: null,
    recreate: true,
    on_shared_storage: null,
    preserve_ephemeral: false,
    migration: object('Migration', '1.7', computes.plane.migrations.get(1) ?? {}),
    scheduled_node: TARGET,
  });
}

const nothing = async (): Promise<void> => {};
const move: Play = (computes, instance) => computes.move(instance);

export const MOVES: Readonly<Record<string, () => Promise<Scene>>> = {
  'resize on this host': () => onTwoHosts({}, nothing, resizeHere),
  'resize on this host, confirmed': () =>
    onTwoHosts({}, resizeHere, (computes, one) => computes.end(one, 'confirm_resize')),
  'resize on this host, reverted': () =>
    onTwoHosts({}, resizeHere, async (computes, instance) => {
      const row = computes.plane.migrations.get(1) ?? {};
      row['status'] = 'reverting';
      computes.source.row(instance)['task_state'] = 'resize_reverting';
      const migration = object('Migration', '1.7', row);
      const args = { instance: computes.stored(instance), migration, request_spec: null };
      await computes.source.send('revert_resize', args);
      await computes.deliver();
    }),
  'move to another host': () => onTwoHosts({}, nothing, move),
  'move, confirmed': () => onTwoHosts({}, move, (computes, instance) => computes.end(instance, 'confirm_resize')),
  'move, reverted': () => onTwoHosts({}, move, (computes, instance) => computes.end(instance, 'revert_resize')),
  evacuation: () =>
    onTwoHosts(
      { task_state: 'rebuilding', migration_context: null },
      async (computes, instance) => void computes.migration(instance, { migration_type: 'evacuation' }),
      evacuate,
    ),
};

export const SIMPLE: Readonly<Record<string, () => Promise<Scene>>> = Object.fromEntries(
  Object.entries(ON_ONE_HOST).map(([name, operation]) => [name, () => onOneHost(operation, name)]),
);

export const SCENES: Readonly<Record<string, () => Promise<Scene>>> = {
  build_and_run_instance: building,
  ...SIMPLE,
  ...MOVES,
};
