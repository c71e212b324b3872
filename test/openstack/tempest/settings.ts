// tempest.conf: the lab's accounts, images, flavors and network, and what its compute offers.
import { join } from 'node:path';
import { render } from '../lab/configuration.ts';
import { EXTERNAL_NETWORK, FLAVOR, NETWORK } from '../lab/resources.ts';
import { KEYSTONE_URL, PASSWORD, REGION } from '../lab/settings.ts';

export interface Facts {
  /** Where locks, logs and results go. */
  readonly folder: string;
  readonly image: string;
  /** What the image is made of. */
  readonly tarball: string;
  readonly otherImage: string;
  readonly flavor: string;
  /** What servers are resized to. */
  readonly largerFlavor: string;
  /** Hosts that servers can be moved between. */
  readonly computes: number;
  readonly hasVolumes: boolean;
  /** With routers, of which floating IP addresses are taken; undefined: there are none, and servers are where the host is. */
  readonly externalNetwork: string | undefined;
}

export const LARGER_FLAVOR = 'c1.small';
export const TEMPEST_FLAVOR = FLAVOR;

/** What is false is what no container has (graphics, encrypted disks, a running move), or what this control plane has not. */
const COMPUTE_FEATURES = {
  change_password: true,
  // a folder of the guest, and as Tempest looks for it: a disk
  config_drive: true,
  cold_migration: true,
  console_output: true,
  disk_config: true,
  enable_instance_password: true,
  hostname_fqdn_sanitization: true,
  interface_attach: true,
  metadata_service: true,
  pause: true,
  personality: true,
  rescue: true,
  resize: true,
  serial_console: true,
  shelve: true,
  shelve_migrate: true,
  snapshot: true,
  suspend: true,
  volume_multiattach: true,
  attach_encrypted_volume: false,
  ide_bus: false,
  live_migration: false,
  rdp_console: false,
  spice_console: false,
  stable_rescue: false,
  swap_volume: false,
  vnc_console: false,
  // as in the lab's nova.conf
  scheduler_enabled_filters: 'all',
};

const ACCOUNTS = {
  admin_username: 'admin',
  admin_password: PASSWORD,
  admin_project_name: 'admin',
  admin_domain_name: 'Default',
  use_dynamic_credentials: true,
};

const VALIDATION = {
  run_validation: true,
  image_ssh_user: 'root',
  image_alt_ssh_user: 'root',
  ssh_timeout: 180,
  ping_timeout: 120,
  connect_timeout: 20,
};

/** All servers are in the lab's one network, which the host has an address in. */
const ONE_NETWORK = {
  auth: { create_isolated_networks: false },
  compute: { fixed_network_name: NETWORK },
  network: { shared_physical_network: true, project_networks_reachable: true },
  validation: { connect_method: 'fixed', network_for_ssh: NETWORK },
};

/** Accounts have networks of their own, which floating IP addresses lead into. */
const networksOf = (external: string) => ({
  auth: { create_isolated_networks: true },
  compute: {},
  network: {
    shared_physical_network: false,
    project_networks_reachable: false,
    public_network_id: external,
    floating_network_name: EXTERNAL_NETWORK,
  },
  validation: { connect_method: 'floating' },
});

export function tempestConfiguration(facts: Facts): string {
  const { folder, computes, hasVolumes, externalNetwork } = facts;
  const networks = externalNetwork === undefined ? ONE_NETWORK : networksOf(externalNetwork);
  return render({
    DEFAULT: { log_dir: folder, log_file: 'tempest.log', debug: true, use_stderr: false },
    oslo_concurrency: { lock_path: join(folder, 'lock') },
    auth: { ...ACCOUNTS, ...networks.auth },
    identity: { uri_v3: KEYSTONE_URL, auth_version: 'v3', region: REGION, v3_endpoint_type: 'publicURL' },
    'identity-feature-enabled': { api_v2: false, api_v3: true },
    compute: {
      image_ref: facts.image,
      image_ref_alt: facts.otherImage,
      flavor_ref: facts.flavor,
      flavor_ref_alt: facts.largerFlavor,
      ...networks.compute,
      min_compute_nodes: computes,
      max_microversion: 'latest',
      build_timeout: 300,
      build_interval: 1,
      hypervisor_type: 'lxd',
      // what Nova calls the first volume of a server whose image names no bus
      volume_device_name: 'sdb',
    },
    'compute-feature-enabled': COMPUTE_FEATURES,
    network: { ...networks.network, endpoint_type: 'public' },
    'network-feature-enabled': {
      ipv6: true,
      ipv6_subnet_attributes: true,
      floating_ips: externalNetwork !== undefined,
      port_security: true,
      qos_placement: false,
    },
    image: { region: REGION },
    'image-feature-enabled': { api_v2: true },
    scenario: { img_file: facts.tarball, img_container_format: 'bare', img_disk_format: 'raw', dhcp_client: 'udhcpc' },
    validation: { ...VALIDATION, ...networks.validation },
    volume: { catalog_type: 'volumev3', storage_protocol: 'nfs', vendor_name: 'Open Source', volume_size: 1 },
    'volume-feature-enabled': { multi_backend: false, backup: false, snapshot: true, extend_attached_volume: true },
    service_available: {
      cinder: hasVolumes,
      glance: true,
      neutron: true,
      nova: true,
      horizon: false,
      swift: false,
    },
  });
}
