// From the configuration to the ways into the world: broker, engine, OpenStack services, this machine.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KeystoneSession, type TokenSource } from 'keystone-client-ts';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import type { LxdEndpoint } from '#drivers/virt/lxd/options.ts';
import type { Host } from '#src/host/host.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import type { RpcTransport } from '#src/messaging/types.ts';
import { createCinder } from '#src/openstack/cinder.ts';
import { createGlance } from '#src/openstack/glance.ts';
import { createNeutron } from '#src/openstack/neutron.ts';
import { createPlacement } from '#src/openstack/placement.ts';
import { createSession } from '#src/openstack/service.ts';
import { simulatedVifDrivers, vifDrivers } from '#drivers/vif/registry.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';
import { type VirtDriverName, virtDrivers } from '#drivers/virt/registry.ts';
import type { ComputeConfig, LxdConfig } from '../config/config.ts';
import { connectorFacts } from '../volumes/connector.ts';
import { createHostVolumes } from '../volumes/host-volumes.ts';
import { connectNotifications } from '../notifications/connect-notifications.ts';
import { type ComputeParts, createComputeService } from './compute-service.ts';
import { createSimulatedHosts } from './simulated-hosts.ts';

/** All that this process serves: one host, or many simulated ones. */
export async function createServices(config: ComputeConfig, log: Log): Promise<Service> {
  const transport = connectBroker(config, log);
  const openStack = connectOpenStack(config);
  const partsOf = async (own: ComputeConfig, way: RpcTransport, ownLog: Log): Promise<ComputeParts> => ({
    ...(await connectHost(own, way, ownLog)),
    ...openStack,
  });
  if (config.computeDriver === 'fake' && config.fake.hosts > 1) {
    return createSimulatedHosts(config, log, { transport, partsOf });
  }
  return createComputeService(config, await partsOf(config, transport, log));
}

async function connectHost(
  config: ComputeConfig,
  transport: RpcTransport,
  log: Log,
): Promise<Omit<ComputeParts, 'placement' | 'neutron' | 'glance' | 'cinder'>> {
  const host = new LinuxHost();
  const modules = config.computeDriver === 'fake' ? simulatedVifDrivers : vifDrivers;
  const { notifications, flush } = await connectNotifications(config, transport, log);
  return {
    log,
    transport,
    virt: await connectEngine(config, log),
    vifs: Object.values(modules).map((module) => module.create({ host, log, ovs: config.ovs })),
    ...connectVolumes(config, host, log),
    notifications,
    flushNotifications: flush,
  };
}

export function connectBroker({ messaging }: ComputeConfig, log: Log): RpcTransport {
  const { transportUrl, rabbit, controlExchange, responseTimeoutMs } = messaging;
  return createRpcTransport({
    transportUrl,
    rabbit,
    log,
    programName: 'nova-compute',
    controlExchange,
    responseTimeoutMs,
  });
}

export async function connectEngine(config: ComputeConfig, log: Log): Promise<VirtDriver> {
  const { computeDriver, host: nodeName, statePath: stateFolder, myIp, lxd, fake } = config;
  if (!isDriverName(computeDriver)) throw new AppError('invalid', `no virt driver ${computeDriver}`);
  const { clientCert: _cert, clientKey: _key, serverCert: _server, maxConcurrentMigrations: _bound, ...driver } = lxd;
  const { nfsMountPointBase: _base, nfsMountOptions: _options, ...options } = driver;
  const policy = { allowNesting: lxd.allowNesting, allowPrivileged: lxd.allowPrivileged };
  const settings = { ...options, policy };
  const endpoint = await endpointOf(lxd);
  const context = { nodeName, log, host: new LinuxHost(), stateFolder, fake };
  return virtDrivers[computeDriver]({ ...context, lxd: { ...settings, endpoint, myIp } });
}

function isDriverName(name: string): name is VirtDriverName {
  return Object.hasOwn(virtDrivers, name);
}

async function endpointOf({ endpoint, clientCert, clientKey, serverCert }: LxdConfig): Promise<LxdEndpoint> {
  if (!endpoint.startsWith('https://')) return { kind: 'unix', socketPath: endpoint.replace(/^unix:(\/\/)?/, '') };
  const [clientCertificate, key, serverCertificate] = await Promise.all([clientCert, clientKey, serverCert].map(pem));
  return {
    kind: 'https',
    url: endpoint,
    clientCertificate: clientCertificate ?? '',
    clientKey: key ?? '',
    ...(serverCertificate !== undefined && { serverCertificate }),
  };
}

async function pem(path: string | null): Promise<string | undefined> {
  if (path === null) return undefined;
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new AppError('invalid', `${path} of [lxd] cannot be read`, { cause: error });
  }
}

function connectVolumes(
  { host: name, myBlockStorageIp, statePath, lxd }: ComputeConfig,
  host: Host,
  log: Log,
): Pick<ComputeParts, 'volumes' | 'connector'> {
  const { nfsMountPointBase: mountFolder, nfsMountOptions: mountOptions } = lxd;
  return {
    volumes: createHostVolumes({ host, log, mountFolder, mountOptions, folder: join(statePath, 'volumes') }),
    connector: (signal) => connectorFacts(host, { host: name, ip: myBlockStorageIp }, signal),
  };
}

/** Glance has no credentials of its own; its catalogue comes from a user's token, or from Neutron's service user. */
export function connectOpenStack(
  config: ComputeConfig,
): Pick<ComputeParts, 'placement' | 'neutron' | 'glance' | 'cinder'> {
  const { placement, neutron, glance, cinder } = config;
  const serviceTokens = serviceTokensOf(config);
  const fallbackTokens = createSession(neutron) ?? createSession(placement);
  const shared = { ...(serviceTokens && { serviceTokens }), ...(fallbackTokens && { fallbackTokens }) };
  return {
    placement: createPlacement({ settings: placement }),
    neutron: createNeutron({ ...shared, settings: neutron, extensionSyncMs: neutron.extensionSyncIntervalMs }),
    glance: createGlance({ ...shared, settings: glance }),
    cinder: createCinder({ ...shared, settings: cinder }),
  };
}

function serviceTokensOf({ serviceUser }: ComputeConfig): TokenSource | undefined {
  const { sendServiceUserToken, auth, tls, timeoutMs } = serviceUser;
  if (!sendServiceUserToken || !auth) return undefined;
  return new KeystoneSession({ auth, ...tls, ...(timeoutMs !== undefined && { timeoutMs }) });
}
