// Every service's configuration file, rendered anew at each start.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { labFirewall } from './networks.ts';
import { COMPUTE_HOST, KEYSTONE_URL, type LabPaths, PASSWORD, PORTS, REGION } from './settings.ts';
import { OVSDB, PHYSICAL_BRIDGE } from './switches.ts';

type Section = Readonly<Record<string, string | number | boolean>>;
type Ini = Readonly<Record<string, Section>>;

export function render(ini: Ini): string {
  return Object.entries(ini)
    .map(([name, section]) => {
      const lines = Object.entries(section).map(([key, value]) => `${key} = ${value}`.trimEnd());
      return `[${name}]\n${lines.join('\n')}\n`;
    })
    .join('\n');
}

export function credentials(user: string): Section {
  return {
    auth_type: 'password',
    auth_url: KEYSTONE_URL,
    project_domain_name: 'Default',
    user_domain_name: 'Default',
    project_name: 'service',
    username: user,
    password: PASSWORD,
    region_name: REGION,
  };
}

export function authtoken(user: string): Section {
  return {
    www_authenticate_uri: KEYSTONE_URL,
    memcached_servers: `127.0.0.1:${PORTS.memcached}`,
    ...credentials(user),
  };
}

/** Through the socket: what a query costs more over TCP, even on loopback, counts where each request makes dozens. */
export const database = ({ run }: LabPaths, name: string) =>
  `mysql+pymysql://lab:${PASSWORD}@localhost/${name}?charset=utf8&unix_socket=${join(run, 'mysql.sock')}`;
export const rabbit = (vhost: string) => `rabbit://guest:guest@127.0.0.1:${PORTS.rabbitmq}/${vhost}`;

function keystone(paths: LabPaths): Ini {
  const { data } = paths;
  return {
    DEFAULT: { use_stderr: true },
    database: { connection: database(paths, 'keystone') },
    token: { provider: 'fernet', expiration: 86_400 },
    // a password that everybody knows needs no expensive hash; each token by password would take 0.2 s of a core
    identity: { password_hash_rounds: 4 },
    fernet_tokens: { key_repository: join(data, 'keystone/fernet-keys') },
    fernet_receipts: { key_repository: join(data, 'keystone/fernet-keys') },
    credential: { key_repository: join(data, 'keystone/credential-keys') },
    cache: { enabled: true, backend: 'oslo_cache.memcache_pool', memcache_servers: `127.0.0.1:${PORTS.memcached}` },
  };
}

function placement(paths: LabPaths): Ini {
  return {
    DEFAULT: { use_stderr: true },
    api: { auth_strategy: 'keystone' },
    placement_database: { connection: database(paths, 'placement') },
    keystone_authtoken: authtoken('placement'),
  };
}

function glance(paths: LabPaths): Ini {
  const { data } = paths;
  return {
    DEFAULT: { bind_host: '127.0.0.1', bind_port: PORTS.glance, workers: 1, use_stderr: true },
    database: { connection: database(paths, 'glance') },
    glance_store: { stores: 'file', default_store: 'file', filesystem_store_datadir: join(data, 'glance/images') },
    paste_deploy: { flavor: 'keystone', config_file: '/etc/glance/glance-api-paste.ini' },
    keystone_authtoken: authtoken('glance'),
  };
}

function neutron(paths: LabPaths): Ini {
  const { data, network } = paths;
  return {
    DEFAULT: {
      core_plugin: 'ml2',
      service_plugins: network === 'ovs' ? 'router,trunk' : 'router',
      transport_url: rabbit('neutron'),
      bind_host: '127.0.0.1',
      bind_port: PORTS.neutron,
      host: COMPUTE_HOST,
      state_path: join(data, 'neutron'),
      api_paste_config: '/etc/neutron/api-paste.ini',
      api_workers: 2,
      rpc_workers: 1,
      rpc_state_report_workers: 0,
      dhcp_agents_per_network: 1,
      // there are no distributed routers; Neutron would look for some at each change of a port
      enable_dvr: false,
      notify_nova_on_port_status_changes: true,
      notify_nova_on_port_data_changes: true,
      use_stderr: true,
    },
    experimental: { linuxbridge: true },
    agent: {
      root_helper: '',
      root_helper_daemon: '',
      use_helper_for_ns_read: false,
      report_interval: 20,
      polling_interval: 1,
    },
    privsep: { helper_command: 'privsep-helper' },
    database: { connection: database(paths, 'neutron') },
    keystone_authtoken: authtoken('neutron'),
    nova: credentials('nova'),
    placement: credentials('placement'),
    oslo_concurrency: { lock_path: join(data, 'neutron/lock') },
  };
}

/** One end of a veth pair stands for a physical network, so that every network gets a bridge of its own; the other is the host's. */
export const PHYSICAL_NETWORKS = {
  physnet1: { inside: 'labphys0', host: 'labphys1' },
  /** Of floating IP addresses, where there are routers. */
  physext: { inside: 'labext0', host: 'labext1' },
} as const;

const MECHANISMS = { linuxbridge: 'linuxbridge', ovs: 'openvswitch', ovn: 'ovn' } as const;

function ml2({ network }: LabPaths): Ini {
  return {
    ml2: {
      type_drivers: 'local,flat,vxlan',
      tenant_network_types: 'local',
      mechanism_drivers: MECHANISMS[network],
      extension_drivers: 'port_security',
    },
    ml2_type_flat: { flat_networks: Object.keys(PHYSICAL_NETWORKS).join(',') },
    ml2_type_vxlan: { vni_ranges: '1:1000' },
    securitygroup: { enable_security_group: true, enable_ipset: true },
  };
}

const LINUXBRIDGE_AGENT: Ini = {
  linux_bridge: {
    physical_interface_mappings: Object.entries(PHYSICAL_NETWORKS)
      .map(([name, { inside }]) => `${name}:${inside}`)
      .join(','),
  },
  vxlan: { enable_vxlan: false },
  securitygroup: { enable_security_group: true, enable_ipset: true, firewall_driver: 'iptables' },
};

function openvswitchAgent(datapath: string): Ini {
  return {
    ovs: {
      integration_bridge: 'br-int',
      bridge_mappings: `physnet1:${PHYSICAL_BRIDGE}`,
      datapath_type: datapath,
      ovsdb_connection: OVSDB,
    },
    securitygroup: { enable_security_group: true, enable_ipset: true, firewall_driver: labFirewall() },
  };
}

function dhcpAgent({ network }: LabPaths): Ini {
  return {
    DEFAULT: {
      interface_driver: network === 'linuxbridge' ? 'linuxbridge' : 'openvswitch',
      dhcp_driver: 'neutron.agent.linux.dhcp.Dnsmasq',
      enable_isolated_metadata: true,
      resync_interval: 30,
    },
    ...(network !== 'linuxbridge' && { ovs: { integration_bridge: 'br-int', ovsdb_connection: OVSDB } }),
  };
}

const L3_AGENT: Ini = { DEFAULT: { interface_driver: 'linuxbridge', agent_mode: 'legacy' } };

const METADATA_AGENT: Ini = {
  DEFAULT: {
    nova_metadata_host: '127.0.0.1',
    nova_metadata_port: PORTS.metadata,
    metadata_proxy_shared_secret: PASSWORD,
    metadata_workers: 1,
  },
};

function novaShared({ data }: LabPaths): Ini {
  return {
    DEFAULT: {
      transport_url: rabbit(''),
      my_ip: '127.0.0.1',
      state_path: join(data, 'nova'),
      use_stderr: true,
      enabled_apis: 'osapi_compute,metadata',
      allow_resize_to_same_host: true,
      osapi_compute_listen: '127.0.0.1',
      osapi_compute_workers: 1,
      metadata_listen: '127.0.0.1',
      metadata_workers: 1,
      // else the scheduler maps a new host only after up to a minute
      periodic_fuzzy_delay: 0,
      // a restarted service is seen to be back with its next report
      report_interval: 3,
    },
    api: { auth_strategy: 'keystone' },
    keystone_authtoken: authtoken('nova'),
    // a lab is for trying: no quotas
    quota: { instances: -1, cores: -1, ram: -1 },
    conductor: { workers: 1 },
    scheduler: { workers: 1, discover_hosts_in_cells_interval: 2 },
    filter_scheduler: {
      track_instance_changes: true,
      // Nova's own, and the two that follow hints
      enabled_filters:
        'ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,SameHostFilter,DifferentHostFilter',
    },
    wsgi: { api_paste_config: '/etc/nova/api-paste.ini' },
    neutron: { ...credentials('neutron'), service_metadata_proxy: true, metadata_proxy_shared_secret: PASSWORD },
    placement: credentials('placement'),
    glance: { region_name: REGION },
    cinder: { ...credentials('nova'), catalog_info: 'volumev3::publicURL' },
    service_user: { send_service_user_token: true, ...credentials('nova') },
    oslo_concurrency: { lock_path: join(data, 'nova/lock') },
  };
}

/** What a compute reads: nova.conf without the databases, and our own section. */
function novaCompute(paths: LabPaths): Ini {
  const shared = novaShared(paths);
  return {
    ...shared,
    // containers that idle share processors well; the default of 4 would hold seven servers on two cores
    DEFAULT: {
      ...shared['DEFAULT'],
      host: COMPUTE_HOST,
      state_path: join(paths.data, 'compute'),
      cpu_allocation_ratio: 16,
      // most of a build is the wait for Neutron's agent, and that wires ports together better than one after the other
      max_concurrent_builds: 20,
    },
    lxd: {
      endpoint: `unix://${join(paths.engineFolder, 'unix.socket')}`,
      migration_address: `127.0.0.1:${PORTS.engine}`,
      config_drive_disk: true,
    },
  };
}

function mariadb({ data, run }: LabPaths): string {
  return `[mysqld]
datadir = ${data}/mysql
socket = ${run}/mysql.sock
pid-file = ${run}/mysql.own
bind-address = 127.0.0.1
port = ${PORTS.mariadb}
user = root
max_connections = 400
skip-name-resolve
character-set-server = utf8mb4
innodb_buffer_pool_size = 192M
innodb_log_file_size = 48M
innodb_flush_log_at_trx_commit = 0
innodb_flush_method = nosync
innodb_doublewrite = 0
performance_schema = 0
tmpdir = ${data}
`;
}

const RABBITMQ = `loopback_users = none
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
log.console = true
log.console.level = warning
log.file = false
`;

const OPENRC = `export OS_AUTH_URL=${KEYSTONE_URL} OS_IDENTITY_API_VERSION=3 OS_REGION_NAME=${REGION}
export OS_USERNAME=admin OS_PASSWORD=${PASSWORD} OS_PROJECT_NAME=admin
export OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default
export OS_COMPUTE_API_VERSION=2.92 OS_PLACEMENT_API_VERSION=1.39
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
`;

/** `datapath`: of bridges of Open vSwitch. */
export function writeConfiguration(paths: LabPaths, datapath: string): void {
  const shared = novaShared(paths);
  const novaApi = {
    ...shared,
    api_database: { connection: database(paths, 'nova_api') },
    database: { connection: database(paths, 'nova') },
  };
  const files: Readonly<Record<string, string>> = {
    'rabbitmq.conf': RABBITMQ,
    rabbit_plugins: '[].\n',
    'my.cnf': mariadb(paths),
    'keystone/keystone.conf': render(keystone(paths)),
    'placement/placement.conf': render(placement(paths)),
    'glance/glance-api.conf': render(glance(paths)),
    'neutron/neutron.conf': render(neutron(paths)),
    'neutron/ml2_conf.ini': render(ml2(paths)),
    'neutron/linuxbridge_agent.ini': render(LINUXBRIDGE_AGENT),
    'neutron/openvswitch_agent.ini': render(openvswitchAgent(datapath)),
    'neutron/dhcp_agent.ini': render(dhcpAgent(paths)),
    'neutron/l3_agent.ini': render(L3_AGENT),
    'neutron/metadata_agent.ini': render(METADATA_AGENT),
    'nova/nova.conf': render(novaApi),
    'nova/nova-compute.conf': render(novaCompute(paths)),
  };
  for (const [name, text] of Object.entries(files)) {
    const path = join(paths.etc, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text, { mode: 0o600 });
  }
  const local = `export LIGHTER_DIR=${paths.engineFolder} LXD_DIR=${paths.engineFolder}\n`;
  writeFileSync(paths.openrc, OPENRC + local, { mode: 0o600 });
}
