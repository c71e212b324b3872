// The documents that a guest is told of itself: network_data.json, the tree of a config drive, cloud-init's texts.
import { describe, expect, it } from 'vitest';
import { cloudInitData } from '#src/compute/guest/cloud-init.ts';
import { configDrive } from '#src/compute/guest/metadata/config-drive.ts';
import type { MetadataFacts } from '#src/compute/guest/metadata/facts.ts';
import { networkData } from '#src/compute/guest/metadata/network-data.ts';
import { parseNetworkInfo, type Vif } from '#src/nova/network-model.ts';
import { parse as parseYaml } from 'yaml';

type Json = Readonly<Record<string, any>>;

const SUBNET_4 = {
  cidr: '10.1.0.0/20',
  dns: [{ address: '8.8.8.8' }],
  gateway: { address: '10.1.0.1' },
  ips: [{ address: '10.1.2.3' }],
  routes: [{ cidr: '192.168.0.0/16', gateway: { address: '10.1.0.9' } }],
  version: 4,
  meta: {},
};
const SUBNET_6 = {
  cidr: '2001:db8:0:1::/64',
  dns: [{ address: '8.8.8.8' }, { address: '2001:db8::53' }],
  gateway: { address: '2001:db8:0:1::1' },
  ips: [{ address: '2001:db8:0:1::5' }],
  routes: [],
  version: 6,
  meta: {},
};

function vifsOf(...subnets: readonly (readonly Json[])[]): readonly Vif[] {
  const vifs = subnets.map((list, index) => ({
    id: `port-${index}`,
    address: `FA:16:3e:00:00:0${index}`,
    devname: `tapport-${index}`,
    type: 'bridge',
    network: { id: `net-${index}`, bridge: 'brq', label: 'n', subnets: list, meta: { mtu: 1450 } },
  }));
  return parseNetworkInfo(JSON.stringify(vifs));
}

describe('network_data.json', () => {
  it('is nothing without interfaces', () => {
    expect(networkData([])).toBeNull();
  });

  it('has the addresses, routes and servers of subnets without DHCP', () => {
    expect(networkData(vifsOf([SUBNET_4, SUBNET_6]))).toEqual({
      links: [
        {
          id: 'tapport-0',
          vif_id: 'port-0',
          type: 'bridge',
          mtu: 1450,
          ethernet_mac_address: 'FA:16:3e:00:00:00',
        },
      ],
      networks: [
        {
          id: 'network0',
          type: 'ipv4',
          link: 'tapport-0',
          network_id: 'net-0',
          ip_address: '10.1.2.3',
          netmask: '255.255.240.0',
          routes: [
            { network: '0.0.0.0', netmask: '0.0.0.0', gateway: '10.1.0.1' },
            { network: '192.168.0.0', netmask: '255.255.0.0', gateway: '10.1.0.9' },
          ],
          services: [{ type: 'dns', address: '8.8.8.8' }],
        },
        {
          id: 'network1',
          type: 'ipv6',
          link: 'tapport-0',
          network_id: 'net-0',
          ip_address: '2001:db8:0:1::5',
          netmask: 'ffff:ffff:ffff:ffff::',
          routes: [{ network: '::', netmask: '::', gateway: '2001:db8:0:1::1' }],
          services: [
            { type: 'dns', address: '8.8.8.8' },
            { type: 'dns', address: '2001:db8::53' },
          ],
        },
      ],
      services: [
        { type: 'dns', address: '8.8.8.8' },
        { type: 'dns', address: '2001:db8::53' },
      ],
    });
  });

  it('leaves to DHCP what DHCP tells, the size of packets too', () => {
    const data = networkData(vifsOf([{ ...SUBNET_4, meta: { dhcp_server: '10.1.0.2' } }]));

    expect(data?.links[0]?.mtu).toBeNull();
    expect(data?.networks).toEqual([{ id: 'network0', type: 'ipv4_dhcp', link: 'tapport-0', network_id: 'net-0' }]);
  });

  it.each(['slaac', 'dhcpv6-stateful', 'dhcpv6-stateless'])('says how addresses come about: %s', (mode) => {
    const meta = { ipv6_address_mode: mode, dhcp_server: 'fe80::1' };

    const data = networkData(vifsOf([{ ...SUBNET_6, meta }]));

    expect(data?.networks[0]).toMatchObject({ type: `ipv6_${mode}`, ip_address: '2001:db8:0:1::5' });
  });

  it('takes the first subnet of each family, and numbers networks through', () => {
    const second = { ...SUBNET_4, cidr: '10.9.0.0/24', ips: [{ address: '10.9.0.9' }] };

    const data = networkData(vifsOf([SUBNET_4, second], [], [SUBNET_6]));

    expect(data?.networks.map(({ id, link, ip_address: address }) => [id, link, address])).toEqual([
      ['network0', 'tapport-0', '10.1.2.3'],
      ['network1', 'tapport-2', '2001:db8:0:1::5'],
    ]);
    expect(data?.links).toHaveLength(2);
  });

  it('calls physical what is no kind of its own', () => {
    const vifs = vifsOf([SUBNET_4]).map((vif) => ({ ...vif, type: 'other', devname: null }));

    expect(networkData(vifs)?.links[0]).toMatchObject({ id: 'interface0', type: 'phy' });
  });
});

function factsOf(changes: Partial<MetadataFacts> = {}): MetadataFacts {
  return {
    uuid: 'the-uuid',
    displayName: 'Web server',
    hostname: 'web.novalocal',
    launchIndex: 0,
    availabilityZone: 'nova',
    projectId: 'the-project',
    metadata: {},
    devices: [],
    userData: null,
    keyName: null,
    keyPair: null,
    keyData: null,
    adminPassword: null,
    files: [],
    dedicatedCpus: [],
    network: null,
    vendorData: { static: {}, all: { static: {} } },
    ec2: {
      instanceId: 'i-0000002a',
      imageId: 'ami-00000001',
      kernelId: null,
      ramdiskId: null,
      reservationId: 'r-1',
      flavorName: 'm1.tiny',
      securityGroups: ['default'],
      address: '10.1.2.3',
      floatingAddress: null,
      blockDevices: { ami: 'sda', root: '/dev/sda' },
    },
    ...changes,
  };
}

const FULL = factsOf({
  metadata: { role: 'web' },
  userData: Buffer.from([0x1f, 0x8b, 0]),
  keyName: 'mine',
  keyPair: { name: 'mine', type: 'ssh', publicKey: 'ssh-rsa AAAA me' },
  keyData: 'ssh-rsa AAAA me',
  adminPassword: 'secret',
  files: [{ path: '/etc/lab', content: Buffer.from('hello') }],
  dedicatedCpus: [2, 3],
  network: { links: [], networks: [], services: [] },
  vendorData: { static: { a: 1 }, all: { static: { a: 1 } } },
});

const filesOf = (facts: MetadataFacts, skipped: readonly string[] = []) =>
  new Map(configDrive(facts, new Set(skipped)).map(({ path, content }) => [path, Buffer.from(content)]));
const read = (files: ReadonlyMap<string, Buffer>, path: string): Json => JSON.parse(String(files.get(path)));

describe('a config drive', () => {
  it('has of each version what that version knows', () => {
    const paths = [...filesOf(factsOf()).keys()];

    const of = (version: string) =>
      paths.filter((path) => path.split('/')[1] === version).map((path) => path.split('/')[2]);
    expect(of('2012-08-10')).toEqual(['meta_data.json']);
    expect(of('2013-10-17')).toEqual(['meta_data.json', 'vendor_data.json']);
    expect(of('2015-10-15')).toEqual(['meta_data.json', 'vendor_data.json', 'network_data.json']);
    expect(of('2016-10-06')).toEqual(['meta_data.json', 'vendor_data.json', 'network_data.json', 'vendor_data2.json']);
    expect(of('2025-04-04')).toEqual(of('2016-10-06'));
    expect(of('2009-04-04')).toEqual(['meta-data.json']);
    // `latest` is of both trees
    expect(of('latest')).toEqual(['meta-data.json', ...of('2016-10-06')]);
  });

  it('lacks the EC2 versions that nobody asks for', () => {
    const paths = [...filesOf(factsOf(), ['1.0', '2007-01-19']).keys()];

    expect(paths.filter((path) => /^ec2\/(1\.0|2007-01-19)\//.test(path))).toEqual([]);
    expect(paths).toContain('ec2/2009-04-04/meta-data.json');
  });

  it('tells what there is', () => {
    const files = filesOf(FULL);

    expect(read(files, 'openstack/latest/meta_data.json')).toEqual({
      uuid: 'the-uuid',
      meta: { role: 'web' },
      files: [{ path: '/etc/lab', content_path: '/content/0000' }],
      admin_pass: 'secret',
      public_keys: { mine: 'ssh-rsa AAAA me' },
      keys: [{ name: 'mine', type: 'ssh', data: 'ssh-rsa AAAA me' }],
      hostname: 'web.novalocal',
      name: 'Web server',
      launch_index: 0,
      availability_zone: 'nova',
      random_seed: expect.stringMatching(/^[A-Za-z0-9+/]{683}=$/) as string,
      project_id: 'the-project',
      devices: [],
      dedicated_cpus: [2, 3],
    });
    expect(files.get('openstack/content/0000')?.toString()).toBe('hello');
    expect(files.get('openstack/2012-08-10/user_data')).toEqual(Buffer.from([0x1f, 0x8b, 0]));
    expect(read(files, 'openstack/latest/vendor_data.json')).toEqual({ a: 1 });
    expect(read(files, 'openstack/latest/vendor_data2.json')).toEqual({ static: { a: 1 } });
  });

  it('tells nothing of what there is not, and the oldest version only what it knew', () => {
    const files = filesOf(factsOf({ vendorData: { static: null, all: {} } }));

    expect(read(files, 'openstack/2012-08-10/meta_data.json')).toEqual({
      uuid: 'the-uuid',
      hostname: 'web.novalocal',
      name: 'Web server',
      launch_index: 0,
      availability_zone: 'nova',
    });
    expect(read(files, 'openstack/latest/network_data.json')).toEqual({});
    expect(read(files, 'openstack/latest/vendor_data.json')).toEqual({});
    expect([...files.keys()].filter((path) => /user.data|content/.test(path))).toEqual([]);
  });

  it('has EC2’s documents', () => {
    const files = filesOf(FULL);

    expect(read(files, 'ec2/latest/meta-data.json')).toEqual({
      'ami-id': 'ami-00000001',
      'ami-launch-index': 0,
      'ami-manifest-path': 'FIXME',
      'instance-id': 'i-0000002a',
      hostname: 'web.novalocal',
      'local-ipv4': '10.1.2.3',
      'reservation-id': 'r-1',
      'security-groups': ['default'],
      'public-keys': { 0: { 'openssh-key': 'ssh-rsa AAAA me' } },
      'local-hostname': 'web.novalocal',
      'public-hostname': 'web.novalocal',
      'public-ipv4': '',
      'instance-type': 'm1.tiny',
      'block-device-mapping': { ami: 'sda', root: '/dev/sda' },
      placement: { 'availability-zone': 'nova' },
      'instance-action': 'none',
    });
    expect(Object.keys(read(files, 'ec2/1.0/meta-data.json'))).toHaveLength(9);
  });
});

describe('cloud-init', () => {
  it('is told name, identity and key, whatever is in them', () => {
    const hostname = 'no: "x"\ninstance-id: other';

    const { metaData } = cloudInitData({ ...FULL, hostname }, []);

    expect(parseYaml(metaData)).toEqual({
      'instance-id': 'the-uuid',
      'local-hostname': hostname,
      'public-keys': ['ssh-rsa AAAA me'],
    });
  });

  it('gets user data as it is when it is a text', () => {
    const text = '#cloud-config\n{ broken ü\n';

    expect(cloudInitData(factsOf({ userData: Buffer.from(text) }), []).userData).toBe(text);
  });

  it('gets user data that is no text in an envelope', () => {
    const { userData } = cloudInitData(FULL, []);

    expect(userData).toBe(
      'MIME-Version: 1.0\nContent-Type: application/x-gzip\nContent-Transfer-Encoding: base64\n\nH4sA\n',
    );
  });

  it.each([
    [{ static: null }, null],
    [{ static: {} }, null],
    [{ static: { 'cloud-init': '#cloud-config\n{}' } }, '#cloud-config\n{}'],
    [{ static: '#!/bin/sh\n' }, '#!/bin/sh\n'],
    [{ static: { 'cloud-init': ['#a', { x: 1 }] } }, '#cloud-config-archive\n[{"content":"#a"},{"x":1}]\n'],
  ])('gets of vendor data %j its own part', (vendorData, text) => {
    expect(cloudInitData(factsOf({ vendorData: { all: {}, ...vendorData } }), []).vendorData).toBe(text);
  });

  it('sets up the network as the documents say, interfaces by their names', () => {
    const vifs = vifsOf([], [{ ...SUBNET_4, meta: { dhcp_server: '10.1.0.2' } }, SUBNET_6]);

    const { networkConfig } = cloudInitData(factsOf({ network: networkData(vifs) }), vifs);

    expect(parseYaml(networkConfig ?? '')).toEqual({
      version: 1,
      config: [
        {
          type: 'physical',
          name: 'eth1',
          mac_address: 'fa:16:3e:00:00:01',
          subnets: [
            { type: 'dhcp4' },
            {
              type: 'static6',
              address: '2001:db8:0:1::5',
              netmask: 'ffff:ffff:ffff:ffff::',
              routes: [{ network: '::', netmask: '::', gateway: '2001:db8:0:1::1' }],
            },
          ],
        },
        { type: 'nameserver', address: '8.8.8.8' },
        { type: 'nameserver', address: '2001:db8::53' },
      ],
    });
  });

  it('keeps its own idea of the network when there is nothing to say', () => {
    expect(cloudInitData(factsOf({ network: networkData(vifsOf([])) }), vifsOf([])).networkConfig).toBeNull();
  });
});
