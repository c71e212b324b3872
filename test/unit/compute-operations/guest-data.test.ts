// What guests are told and given at build, rebuild and unshelve: config drives, files, keys and passwords.
import { describe, expect, it } from 'vitest';
import { GuestFileError } from '#drivers/virt/driver.ts';
import { ComputeHarness, IMAGE, instanceOf, networkRequests, object } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

const KEY = 'ssh-rsa AAAA me';
const KEYED = {
  key_name: 'mine',
  key_data: KEY,
  keypairs: object('KeyPairList', '1.3', {
    objects: [object('KeyPair', '1.4', { id: 1, name: 'mine', user_id: 'user', public_key: KEY, type: 'ssh' })],
  }),
};
const EC2 = object('EC2Ids', '1.0', { instance_id: 'i-1', ami_id: 'ami-1', kernel_id: null, ramdisk_id: null });

const guestOf = (harness: ComputeHarness, instance: Json) =>
  harness.virt.instances.get(instance['nova_object.data'].uuid)?.guest;

function driveOf(harness: ComputeHarness, instance: Json): ReadonlyMap<string, string> {
  const files = guestOf(harness, instance)?.configDrive ?? [];
  return new Map(files.map(({ path, content }) => [path, Buffer.from(content).toString()]));
}

const metadataOf = (harness: ComputeHarness, instance: Json): Json =>
  JSON.parse(driveOf(harness, instance).get('openstack/latest/meta_data.json') ?? 'null');

describe('tagged devices', () => {
  it('are told on the config drive and kept with the instance', async () => {
    await using harness = new ComputeHarness({ config: 'force_config_drive = true' });
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();
    const { uuid } = instance['nova_object.data'];
    const root = {
      id: 1,
      source_type: 'image',
      destination_type: 'local',
      boot_index: 0,
      device_name: null,
      tag: 'root',
    };
    const objects = [object('BlockDeviceMapping', '1.21', { instance_uuid: uuid, ...root })];

    await harness.build(instance, {
      requested_networks: networkRequests({ network_id: network.id, tag: 'nic1' }),
      block_device_mapping: object('BlockDeviceMappingList', '1.18', { objects }),
    });

    const [port] = harness.neutron.ports.values();
    const bus = { bus: 'none', address: 'none' };
    expect(metadataOf(harness, instance)['devices']).toEqual([
      { type: 'nic', mac: port?.['mac_address'], vf_trusted: false, ...bus, tags: ['nic1'] },
      { type: 'disk', serial: null, ...bus, tags: ['root'] },
    ]);
    expect(harness.row(instance)['device_metadata']['nova_object.data'].devices).toHaveLength(2);
  });
});

describe('a config drive', () => {
  it.each([
    ['the user asks for it', { config_drive: 'True' }, {}, ''],
    ['the image needs it', {}, { image: { ...IMAGE, properties: { img_config_drive: 'mandatory' } } }, ''],
    ['the image of the record needs it', { system_metadata: { image_img_config_drive: 'mandatory' } }, {}, ''],
    ['all new instances get it', {}, {}, 'force_config_drive = true'],
  ])('is made when %s, and Nova told', async (_what, fields, args, config) => {
    await using harness = new ComputeHarness({ config });
    const instance = instanceOf(fields);

    await harness.build(instance, args);

    expect(metadataOf(harness, instance)).toMatchObject({
      uuid: instance['nova_object.data'].uuid,
      hostname: 'web.novalocal',
      name: 'web',
      admin_pass: 'very-secret',
      project_id: 'project',
    });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', config_drive: 'True' });
  });

  it.each([
    ['nobody asks for it', {}, {}],
    ['it is optional', {}, { image: { ...IMAGE, properties: { img_config_drive: 'optional' } } }],
  ])('is not made when %s', async (_what, fields, args) => {
    await using harness = new ComputeHarness();
    const instance = instanceOf(fields);

    await harness.build(instance, args);

    expect(guestOf(harness, instance)).toMatchObject({ configDrive: null });
    expect(harness.row(instance)['config_drive']).toBe('');
  });

  it('has network, groups, key and files of the instance', async () => {
    await using harness = new ComputeHarness({ config: '[api]\ndhcp_domain =\n' });
    const network = harness.neutron.addNetwork();
    harness.neutron.securityGroups.push({ id: 'group-1', name: 'web-servers' });
    harness.neutron.onBound = () => {
      for (const port of harness.neutron.ports.values()) Object.assign(port, { security_groups: ['group-1'] });
    };
    const userData = Buffer.from('#!/bin/sh\n').toString('base64');
    const instance = instanceOf({ config_drive: 'True', ...KEYED, ec2_ids: EC2, user_data: userData });

    await harness.build(instance, {
      requested_networks: networkRequests({ network_id: network.id }),
      injected_files: [['/etc/lab', Buffer.from('hello').toString('base64')]],
    });

    const drive = driveOf(harness, instance);
    expect(metadataOf(harness, instance)).toMatchObject({
      hostname: 'web',
      public_keys: { mine: KEY },
      files: [{ path: '/etc/lab', content_path: '/content/0000' }],
    });
    expect(drive.get('openstack/content/0000')).toBe('hello');
    expect(drive.get('openstack/latest/user_data')).toBe('#!/bin/sh\n');
    expect(JSON.parse(drive.get('openstack/latest/network_data.json') ?? '').links).toHaveLength(1);
    expect(JSON.parse(drive.get('ec2/latest/meta-data.json') ?? '')).toMatchObject({
      'security-groups': ['web-servers'],
      'instance-id': 'i-1',
      'local-ipv4': '10.77.0.21',
      'instance-type': 'm1.tiny',
      'block-device-mapping': { ami: 'sda', root: '/dev/sda' },
    });
    // what is in the drive is put into the guest by the guest
    expect(guestOf(harness, instance)?.files).toEqual([]);
  });

  it('keeps the password out of the log', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new Error('no'));

    await harness.build(instanceOf({ config_drive: 'True' }), { filter_properties: {} });

    expect(JSON.stringify(harness.log.lines)).not.toContain('very-secret');
    expect(JSON.stringify(harness.plane.faults)).not.toContain('very-secret');
  });
});

describe('without a config drive', () => {
  it('files are put into the root file system, and cloud-init is told by the engine', async () => {
    await using harness = new ComputeHarness();
    const userData = Buffer.from('#!/bin/sh\n').toString('base64');
    const instance = instanceOf({ ...KEYED, user_data: userData });

    await harness.build(instance, { injected_files: [['/etc/lab', 'aGVsbG8=']] });

    const guest = guestOf(harness, instance);
    expect(guest?.files.map(({ path, content }) => [path, Buffer.from(content).toString()])).toEqual([
      ['/etc/lab', 'hello'],
    ]);
    expect(guest?.cloudInit).toMatchObject({ userData: '#!/bin/sh\n', vendorData: null, networkConfig: null });
    expect(guest?.cloudInit.metaData).toContain(`public-keys: ["${KEY}"]`);
    expect(guest?.cloudInit.metaData).not.toContain('very-secret');
    expect(guest?.rootKey).toBeNull();
  });

  it('a file that cannot be there aborts the build, and no other host is tried', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new GuestFileError('the file /etc/x/y cannot be put into the guest'));
    const instance = instanceOf();

    await harness.build(instance, { injected_files: [['/etc/x/y', '']] });

    expect(harness.row(instance)['vm_state']).toBe('error');
    expect(harness.plane.faults[0]?.['message']).toContain('/etc/x/y cannot be put');
    expect(harness.plane.casts.map(({ method }) => method)).not.toContain('build_instances');
  });

  it.each([[[['/x']]], [['/x']], [[['/x', 1]]]])('files of another form are refused: %j', async (files) => {
    await using harness = new ComputeHarness();

    await expect(harness.send('build_and_run_instance', { ...instanceOf(), injected_files: files })).rejects.toThrow();
  });
});

describe('where the operator wants it', () => {
  it('root gets the key, and its password', async () => {
    await using harness = new ComputeHarness({ config: '[lxd]\ninject_key = true\ninject_password = true\n' });
    const instance = instanceOf(KEYED);

    await harness.build(instance);

    expect(guestOf(harness, instance)?.rootKey).toBe(KEY);
    expect(harness.virt.passwords.get(instance['nova_object.data'].uuid)).toBe('very-secret');
  });

  it('a guest whose password cannot be set is built all the same', async () => {
    await using harness = new ComputeHarness({ config: '[lxd]\ninject_password = true\n' });
    harness.virt.failNext('setPassword', new Error('no chpasswd'));
    const instance = instanceOf();

    await harness.build(instance);

    expect(harness.row(instance)['vm_state']).toBe('active');
    expect(JSON.stringify(harness.log.lines)).not.toContain('very-secret');
  });
});

describe('vendor data', () => {
  it('that cannot be read fails the build without telling where it is', async () => {
    await using harness = new ComputeHarness({ config: '[api]\nvendordata_jsonfile_path = /no/such/file.json\n' });
    const instance = instanceOf();

    await harness.build(instance, { filter_properties: {} });

    expect(harness.row(instance)['vm_state']).toBe('error');
    expect(JSON.stringify(harness.plane.faults.map(({ message }) => message))).not.toContain('/no/such');
  });
});

describe('a guest that is made anew', () => {
  async function running(harness: ComputeHarness, fields: Json): Promise<Json> {
    const instance = instanceOf({ config_drive: 'True', ec2_ids: EC2, ...fields });
    await harness.build(instance);
    harness.glance.addActive('new');
    return instance;
  }

  it('gets a drive with the new password, files and what the message lacks', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness, KEYED);
    Object.assign(harness.row(instance), { task_state: 'rebuilding', image_ref: 'new' });
    const { keypairs: _pairs, ec2_ids: _ids, ...known } = harness.row(instance);
    const message = object('Instance', '2.7', known);

    await harness.send('rebuild_instance', {
      instance: message,
      image_ref: 'new',
      orig_image_ref: 'image-1',
      orig_sys_metadata: {},
      injected_files: [['/etc/lab', 'aGVsbG8=']],
      new_pass: 'other-secret',
      bdms: null,
    });

    expect(metadataOf(harness, instance)).toMatchObject({
      admin_pass: 'other-secret',
      public_keys: { mine: KEY },
      files: [{ path: '/etc/lab', content_path: '/content/0000' }],
    });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', config_drive: 'True' });
  });

  it('after shelving gets a drive without password, files and injected key', async () => {
    await using harness = new ComputeHarness({ config: '[lxd]\ninject_key = true\n' });
    const instance = await running(harness, KEYED);
    const { uuid } = instance['nova_object.data'];
    Object.assign(harness.row(instance), { task_state: 'shelving' });
    harness.glance.addQueued('snap');
    await harness.send('shelve_instance', { instance: instanceOf(harness.row(instance)), image_id: 'snap' });
    harness.placement.consumers.add(uuid);
    Object.assign(harness.row(instance), { task_state: 'unshelving' });

    await harness.send('unshelve_instance', {
      instance: instanceOf(harness.row(instance)),
      image: { ...IMAGE, id: 'snap' },
    });

    expect(metadataOf(harness, instance)).toMatchObject({ uuid, public_keys: { mine: KEY } });
    expect(metadataOf(harness, instance)).not.toHaveProperty('admin_pass');
    expect(guestOf(harness, instance)?.rootKey).toBeNull();
  });
});
