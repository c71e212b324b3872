// Flavors, a network and an image: what the first server needs.
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { makeBusyboxRootTarball } from '../../integration/images.ts';
import { Cloud } from './cloud.ts';
import type { LabPaths } from './settings.ts';

export const IMAGE = 'busybox';
export const NETWORK = 'private';
export const FLAVOR = 'c1.tiny';

const FLAVORS = [
  { id: '1', name: FLAVOR, ram: 128, vcpus: 1, disk: 1 },
  { id: '2', name: 'c1.small', ram: 512, vcpus: 1, disk: 4 },
  { id: '3', name: 'c1.medium', ram: 1024, vcpus: 2, disk: 8 },
] as const;

async function ensureFlavors(cloud: Cloud): Promise<void> {
  const { flavors } = await cloud.get<{ flavors: readonly { name: string }[] }>(cloud.compute, '/flavors');
  for (const flavor of FLAVORS) {
    if (flavors.some(({ name }) => name === flavor.name)) continue;
    await cloud.post(cloud.compute, '/flavors', { flavor });
  }
}

interface NetworkBody {
  readonly id: string;
  readonly subnets: readonly string[];
}

async function ensureNetwork(cloud: Cloud): Promise<void> {
  const path = `/v2.0/networks?name=${NETWORK}`;
  const { networks } = await cloud.get<{ networks: readonly NetworkBody[] }>(cloud.network, path);
  const network = networks[0] ?? (await createNetwork(cloud));
  if (network.subnets.length > 0) return;
  const subnet = {
    name: `${NETWORK}-v4`,
    network_id: network.id,
    ip_version: 4,
    cidr: '10.77.0.0/24',
    gateway_ip: '10.77.0.1',
    allocation_pools: [{ start: '10.77.0.10', end: '10.77.0.250' }],
  };
  await cloud.post(cloud.network, '/v2.0/subnets', { subnet });
}

export const EXTERNAL_NETWORK = 'public';
/** Of the external network: the host's end of it has the first address. */
export const EXTERNAL = { cidr: '172.24.4.0/24', gateway: '172.24.4.1' } as const;

export async function ensureExternalNetwork(cloud: Cloud): Promise<void> {
  const path = `/v2.0/networks?name=${EXTERNAL_NETWORK}`;
  const { networks } = await cloud.get<{ networks: readonly NetworkBody[] }>(cloud.network, path);
  const wanted = {
    name: EXTERNAL_NETWORK,
    'router:external': true,
    'provider:network_type': 'flat',
    'provider:physical_network': 'physext',
  };
  const network =
    networks[0] ??
    (await cloud.post<{ network: NetworkBody }>(cloud.network, '/v2.0/networks', { network: wanted })).network;
  if (network.subnets.length > 0) return;
  const subnet = {
    name: `${EXTERNAL_NETWORK}-v4`,
    network_id: network.id,
    ip_version: 4,
    cidr: EXTERNAL.cidr,
    gateway_ip: EXTERNAL.gateway,
    enable_dhcp: false,
  };
  await cloud.post(cloud.network, '/v2.0/subnets', { subnet });
}

async function createNetwork(cloud: Cloud): Promise<NetworkBody> {
  const network = {
    name: NETWORK,
    shared: true,
    'provider:network_type': 'flat',
    'provider:physical_network': 'physnet1',
  };
  return (await cloud.post<{ network: NetworkBody }>(cloud.network, '/v2.0/networks', { network })).network;
}

/** Lets ping and SSH in, so that the first server answers. */
async function openDefaultGroup(cloud: Cloud): Promise<void> {
  const { project } = await adminProject(cloud);
  const path = `/v2.0/security-groups?name=default&tenant_id=${project}`;
  const { security_groups: groups } = await cloud.get<{
    security_groups: readonly {
      id: string;
      security_group_rules: readonly { protocol: string | null; direction: string }[];
    }[];
  }>(cloud.network, path);
  const [group] = groups;
  if (!group || group.security_group_rules.some(({ protocol }) => protocol === 'icmp')) return;
  const rule = { security_group_id: group.id, direction: 'ingress', ethertype: 'IPv4', remote_ip_prefix: '0.0.0.0/0' };
  for (const wanted of [{ protocol: 'icmp' }, { protocol: 'tcp', port_range_min: 22, port_range_max: 22 }]) {
    await cloud.post(cloud.network, '/v2.0/security-group-rules', { security_group_rule: { ...rule, ...wanted } });
  }
}

async function adminProject(cloud: Cloud): Promise<{ project: string }> {
  const body = await cloud.get<{ projects: readonly { id: string }[] }>(cloud.identity, '/projects?name=admin');
  return { project: body.projects[0]?.id ?? '' };
}

/** Uploads a file as a public image; returns its id. An image of that name stays as it is. */
export async function ensureImage(cloud: Cloud, name: string, path: string): Promise<string> {
  const { images } = await cloud.get<{ images: readonly { id: string; status: string }[] }>(
    cloud.image,
    `/v2/images?name=${encodeURIComponent(name)}`,
  );
  const active = images.find(({ status }) => status === 'active');
  if (active) return active.id;
  return await uploadImage(cloud, name, path);
}

export async function uploadImage(cloud: Cloud, name: string, path: string): Promise<string> {
  const description = { name, disk_format: 'raw', container_format: 'bare', visibility: 'public' };
  const { id } = await cloud.post<{ id: string }>(cloud.image, '/v2/images', description);
  await cloud.image.request({
    method: 'PUT',
    path: `/v2/images/${id}/file`,
    headers: { 'Content-Type': 'application/octet-stream' },
    body: createReadStream(path),
  });
  return id;
}

export async function ensureResources(paths: LabPaths): Promise<void> {
  const cloud = new Cloud();
  const tarball = join(paths.data, 'busybox-rootfs.tar.gz');
  await Promise.all([ensureFlavors(cloud), ensureNetwork(cloud), makeBusyboxRootTarball(tarball)]);
  await Promise.all([openDefaultGroup(cloud), ensureImage(cloud, IMAGE, tarball)]);
}
