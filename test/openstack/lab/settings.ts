// Where the all-in-one OpenStack lives, and its ports; everything listens on loopback.
import { join } from 'node:path';
import { type LabNetwork, labNetwork } from './networks.ts';
import { type LabEngine, labEngine } from './stock-engines.ts';

export const PASSWORD = 'lightervisor';
export const REGION = 'RegionOne';
/** Host name of the compute, of Neutron's agents, and in the service list. */
export const COMPUTE_HOST = 'node1';

export const PORTS = {
  epmd: 4370,
  rabbitmq: 5672,
  rabbitmqDistribution: 25672,
  mariadb: 3306,
  memcached: 11211,
  keystone: 5000,
  placement: 8778,
  glance: 9292,
  cinder: 8776,
  neutron: 9696,
  nova: 8774,
  metadata: 8775,
  serialProxy: 6083,
  /** Where the engines of the two hosts offer containers to each other. */
  engine: 18_443,
  secondEngine: 18_444,
} as const;

export interface LabPaths {
  readonly state: string;
  readonly etc: string;
  readonly run: string;
  readonly log: string;
  readonly data: string;
  readonly openrc: string;
  readonly engine: LabEngine;
  readonly network: LabNetwork;
  /** Directory of the lab's engine, such as $LIGHTER_DIR. */
  readonly engineFolder: string;
  readonly novaConf: string;
  readonly computeConf: string;
}

/** `state` comes from LIGHTERVISOR_LAB; default /var/lib/lightervisor-lab. The engine is LIGHTERVISOR_ENGINE, what wires ports LIGHTERVISOR_NETWORK. */
export function labPaths(state: string): LabPaths {
  const etc = join(state, 'etc');
  const engine = labEngine();
  return {
    state,
    etc,
    run: join(state, 'run'),
    log: join(state, 'log'),
    data: join(state, 'data'),
    openrc: join(state, 'openrc'),
    engine,
    network: labNetwork(state),
    engineFolder: join(state, engine === 'lighterd' ? 'lighter' : engine),
    novaConf: join(etc, 'nova', 'nova.conf'),
    computeConf: join(etc, 'nova', 'nova-compute.conf'),
  };
}

export function defaultPaths(): LabPaths {
  return labPaths(process.env['LIGHTERVISOR_LAB'] ?? '/var/lib/lightervisor-lab');
}

export const KEYSTONE_URL = `http://127.0.0.1:${PORTS.keystone}/v3`;
