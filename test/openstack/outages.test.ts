// Services that are away, answer 500, or take their time, as the compute alone sees it: proxies are between it and them. What the
// user then sees on a real Nova, and that everything can be deleted when they are back.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { OpenStackError } from 'keystone-client-ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startCinder } from './lab/cinder.ts';
import type { Server } from './lab/cloud.ts';
import { type Fault, FaultProxy } from './lab/fault-proxy.ts';
import { overrideFile, startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { PORTS } from './lab/settings.ts';
import { actionsOf, activeServer, cloud, deleteServer, lab, paths, processes } from './lab/suite.ts';
import { newVolume, waitForVolume } from './lab/volumes.ts';

const HTTP = {
  keystone: PORTS.keystone,
  placement: PORTS.placement,
  glance: PORTS.glance,
  neutron: PORTS.neutron,
  cinder: PORTS.cinder,
};
type ServiceName = keyof typeof HTTP | 'engine';

const ENGINE_SOCKET = join(paths.run, 'faulty-engine.socket');
const proxies = new Map<ServiceName, FaultProxy>();
const created: string[] = [];
const images: string[] = [];
let before: Residue;

function proxyOf(service: ServiceName): FaultProxy {
  const proxy = proxies.get(service);
  if (!proxy) throw new Error(`no proxy of ${service}`);
  return proxy;
}

function override(): string {
  const url = (service: keyof typeof HTTP) => proxyOf(service).url;
  const auth = `auth_url = ${url('keystone')}/v3`;
  const text = `[neutron]\nendpoint_override = ${url('neutron')}\n${auth}
[placement]\nendpoint_override = ${url('placement')}\n${auth}
[glance]\nendpoint_override = ${url('glance')}
[cinder]\nendpoint_template = ${url('cinder')}/v3/%(project_id)s\n${auth}
[service_user]\n${auth}
[lxd]\nendpoint = unix://${ENGINE_SOCKET}\n`;
  return overrideFile(paths, 'faulty', text);
}

async function restartCompute(extra: readonly string[]): Promise<void> {
  await processes.stop('nova-compute-lxd');
  startCompute(paths, processes, extra);
  await waitForConsumer(processes);
}

interface Operation {
  readonly perform: (server: Server) => Promise<unknown>;
  /** Brings it there first. */
  readonly before?: (server: Server) => Promise<unknown>;
}

const act = (body: object) => (server: Server) => cloud.action(server.id, body as Readonly<Record<string, unknown>>);
const volumeOf = new Map<string, string>();
const attachments = (server: Server): string => `/servers/${server.id}/os-volume_attachments`;

async function attachVolume(server: Server): Promise<void> {
  const volumeId = volumeOf.get(server.id) ?? (await newVolume(`of-${server.name}`));
  volumeOf.set(server.id, volumeId);
  await cloud.post(cloud.compute, attachments(server), { volumeAttachment: { volumeId } });
}

async function portsOf(server: Server): Promise<readonly { readonly port_id: string }[]> {
  type Answer = { readonly interfaceAttachments: readonly { readonly port_id: string }[] };
  return (await cloud.get<Answer>(cloud.compute, `/servers/${server.id}/os-interface`)).interfaceAttachments;
}

const resize = act({ resize: { flavorRef: '2' } });

const OPERATIONS: Readonly<Record<string, Operation>> = {
  stop: { perform: act({ 'os-stop': null }) },
  start: { before: act({ 'os-stop': null }), perform: act({ 'os-start': null }) },
  'hard reboot': { perform: act({ reboot: { type: 'HARD' } }) },
  suspend: { perform: act({ suspend: null }) },
  resume: { before: act({ suspend: null }), perform: act({ resume: null }) },
  rescue: { perform: act({ rescue: {} }) },
  rebuild: { perform: async (server) => act({ rebuild: { imageRef: (await lab()).image } })(server) },
  snapshot: {
    perform: async (server) => {
      const body = { createImage: { name: `of-${server.name}` } };
      images.push(((await cloud.action(server.id, body)) as { image_id: string }).image_id);
    },
  },
  shelve: { perform: act({ shelve: null }) },
  unshelve: { before: act({ shelve: null }), perform: act({ unshelve: null }) },
  resize: { perform: resize },
  confirm: { before: resize, perform: act({ confirmResize: null }) },
  revert: { before: resize, perform: act({ revertResize: null }) },
  'attach interface': {
    perform: async (server) =>
      cloud.post(cloud.compute, `/servers/${server.id}/os-interface`, {
        interfaceAttachment: { net_id: (await lab()).network },
      }),
  },
  'detach interface': {
    perform: async (server) =>
      cloud.delete(cloud.compute, `/servers/${server.id}/os-interface/${(await portsOf(server))[0]?.port_id}`),
  },
  'attach volume': { perform: attachVolume },
  'detach volume': {
    before: async (server) => {
      await attachVolume(server);
      await waitForVolume(volumeOf.get(server.id) ?? '', 'in-use');
    },
    perform: (server) => cloud.delete(cloud.compute, `${attachments(server)}/${volumeOf.get(server.id)}`),
  },
  delete: { perform: (server) => cloud.delete(cloud.compute, `/servers/${server.id}`) },
};

/** Until nothing is under way any more: every event of the newest action has ended, and then there is no task. */
async function settled(id: string, limitMs: number): Promise<Server | undefined> {
  for (const deadline = Date.now() + limitMs; ; await sleep(300)) {
    const known = (await cloud.server(id)) !== undefined;
    const [action] = known ? await actionsOf(id) : [];
    // read after the events: what they ended with is saved before
    const server = await cloud.server(id);
    if (!server) return undefined;
    const isOver =
      action !== undefined && action.events.length > 0 && action.events.every(({ result }) => result !== null);
    const isIdle = server['OS-EXT-STS:task_state'] === null && !['BUILD', 'RESIZE'].includes(server.status);
    if ((isOver && isIdle) || Date.now() > deadline) return server;
  }
}

/** What the user sees: status, task, result of the action, fault; the refusal of a call that waits for the compute. */
async function outcomeOf(id: string, asking: Promise<unknown>, limitMs: number): Promise<string> {
  const refusal = await asking.then(
    () => undefined,
    (error: unknown) => (error instanceof OpenStackError ? `HTTP ${error.status}` : String(error)),
  );
  const server = await settled(id, limitMs);
  if (!server) return ['DELETED', ...(refusal === undefined ? [] : [refusal])].join(', ');
  const [action] = await actionsOf(id);
  const failed = action?.events
    .filter(({ result }) => result !== 'Success')
    .map(({ event, result }) => `${event} ${result}`);
  const task = server['OS-EXT-STS:task_state'];
  return [
    server.status,
    ...(task === null ? [] : [task]),
    ...(failed ?? []),
    ...(server.fault ? [`fault "${server.fault.message.replaceAll(id, 'ID')}"`] : []),
    ...(refusal === undefined ? [] : [refusal]),
  ].join(', ');
}

let counter = 0;
async function prepared(operation: Operation): Promise<Server> {
  counter += 1;
  const server = await activeServer({ name: `outage-${counter}` });
  created.push(server.id);
  if (!operation.before) return server;
  await operation.before(server);
  return (await settled(server.id, 60_000)) ?? server;
}

beforeAll(async () => {
  await startCinder(paths, processes);
  before = await takeResidue(cloud, paths);
  for (const [name, port] of Object.entries(HTTP)) proxies.set(name as ServiceName, await FaultProxy.start({ port }));
  const engine = { socketPath: join(paths.engineFolder, 'unix.socket') };
  proxies.set('engine', await FaultProxy.start(engine, { socketPath: ENGINE_SOCKET }));
  await restartCompute([override()]);
});

afterEach(async () => {
  for (const proxy of proxies.values()) await proxy.set('none');
  await Promise.all(created.splice(0).map((id) => deleteServer(id)));
  for (const id of images.splice(0)) await cloud.delete(cloud.image, `/v2/images/${id}`).catch(absent);
  for (const [server, id] of volumeOf) {
    volumeOf.delete(server);
    await waitForVolume(id, 'available');
    await cloud.volume.request({ method: 'DELETE', path: `/volumes/${id}` });
  }
});

afterAll(async () => {
  await restartCompute([]);
  for (const proxy of proxies.values()) await proxy[Symbol.asyncDispose]();
  rmSync(ENGINE_SOCKET, { force: true });
  await expectNothingLeft(before, 60_000);
});

function absent(error: unknown): void {
  if (!(error instanceof OpenStackError) || error.status !== 404) throw error;
}

async function measure(name: string, service: ServiceName, fault: Fault, limitMs: number): Promise<string> {
  const operation = OPERATIONS[name];
  if (!operation) throw new Error(`no operation ${name}`);
  const server = await prepared(operation);
  if (service === 'keystone') {
    // what it has it keeps: only a compute that has just started must ask
    await proxyOf(service).set(fault);
    await restartCompute([override()]);
  } else await proxyOf(service).set(fault);
  const began = Date.now();
  const outcome = await outcomeOf(server.id, operation.perform(server), limitMs);
  const { requests } = proxyOf(service);
  await proxyOf(service).set('none');
  console.log(
    `CELL | ${name} | ${service} | ${fault} | ${outcome} | ${requests} requests | ${Math.round((Date.now() - began) / 1000)} s`,
  );
  return outcome;
}

const EXPECTED: readonly (readonly [string, ServiceName, Fault, string])[] = [
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

describe('while a service fails', () => {
  it.each(EXPECTED)('%s with %s which %s', async (name, service, fault, expected) => {
    expect(await measure(name, service, fault, 60_000)).toBe(expected);
  });
});

const wanted = process.env['OUTAGE_CELLS'];
describe.runIf(wanted !== undefined)('measured', () => {
  const cells = (wanted ?? '').split(';').map((cell) => cell.split(',') as [string, ServiceName, Fault]);
  it.each(cells)('%s with %s which %s', async (name, service, fault) => {
    await measure(name, service, fault, fault === 'is slow' ? 500_000 : 90_000);
  });
});
