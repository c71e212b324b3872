// Services that are away, answer 500, or take their time, as the compute alone sees it: proxies are between it and them. What the
// user then sees on a real Nova, and that everything can be deleted without a trace when they are back.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startCinder } from './lab/cinder.ts';
import { type Fault, FaultProxy } from './lab/fault-proxy.ts';
import { FAULTY_EXCHANGE, FaultyConductor } from './lab/faulty-conductor.ts';
import { overrideFile, startCompute, waitForConsumer } from './lab/node.ts';
import { beginServer, OPERATIONS, outcomeOf, preparedServer, removeAll } from './lab/operations.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { PORTS } from './lab/settings.ts';
import { cloud, paths, processes } from './lab/suite.ts';

const HTTP = {
  keystone: PORTS.keystone,
  placement: PORTS.placement,
  glance: PORTS.glance,
  neutron: PORTS.neutron,
  cinder: PORTS.cinder,
};
type ServiceName = keyof typeof HTTP | 'engine' | 'conductor';
/** 'is away' is down when the operation begins, 'errs' answers 500 then; both are as usual after a while. */
type Trouble = Fault | 'is away' | 'errs';
const FAULTS: Readonly<Record<Trouble, Fault>> = {
  none: 'none',
  'is down': 'is down',
  'is away': 'is down',
  'answers 500': 'answers 500',
  errs: 'answers 500',
  'is slow': 'is slow',
};
const PASSING: readonly Trouble[] = ['is away', 'errs'];

const seconds = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise) * 1000;
const SLOW_MS = seconds('OUTAGE_SLOW_SECONDS', 3);
const AWAY_MS = seconds('OUTAGE_AWAY_SECONDS', 10);

const ENGINE_SOCKET = join(paths.run, 'faulty-engine.socket');
const proxies = new Map<ServiceName, FaultProxy | FaultyConductor>();
let before: Residue;

function proxyOf(service: ServiceName): FaultProxy | FaultyConductor {
  const proxy = proxies.get(service);
  if (!proxy) throw new Error(`no proxy of ${service}`);
  return proxy;
}

function urlOf(service: keyof typeof HTTP): string {
  const proxy = proxyOf(service);
  if (!(proxy instanceof FaultProxy)) throw new Error(`${service} has no URL`);
  return proxy.url;
}

function override(): string {
  const auth = `auth_url = ${urlOf('keystone')}/v3`;
  const text = `[DEFAULT]\ncontrol_exchange = ${FAULTY_EXCHANGE}
[neutron]\nendpoint_override = ${urlOf('neutron')}\n${auth}
[placement]\nendpoint_override = ${urlOf('placement')}\n${auth}
[glance]\nendpoint_override = ${urlOf('glance')}
[cinder]\nendpoint_template = ${urlOf('cinder')}/v3/%(project_id)s\n${auth}
[service_user]\n${auth}
[lxd]\nendpoint = unix://${ENGINE_SOCKET}\n`;
  return overrideFile(paths, 'faulty', text);
}

async function restartCompute(extra: readonly string[]): Promise<void> {
  await processes.stop('nova-compute-lxd');
  startCompute(paths, processes, extra);
  await waitForConsumer(processes);
}

beforeAll(async () => {
  await startCinder(paths, processes);
  before = await takeResidue(cloud, paths);
  for (const [name, port] of Object.entries(HTTP)) proxies.set(name as ServiceName, await FaultProxy.start({ port }));
  const engine = { socketPath: join(paths.engineFolder, 'unix.socket') };
  proxies.set('engine', await FaultProxy.start(engine, { socketPath: ENGINE_SOCKET }));
  proxies.set('conductor', await FaultyConductor.start());
  for (const proxy of proxies.values()) proxy.slowMs = SLOW_MS;
  await restartCompute([override()]);
});

afterEach(async () => {
  for (const proxy of proxies.values()) await proxy.set('none');
  await removeAll();
});

afterAll(async () => {
  await restartCompute([]);
  for (const proxy of proxies.values()) await proxy[Symbol.asyncDispose]();
  rmSync(ENGINE_SOCKET, { force: true });
  await expectNothingLeft(before, 90_000);
});

async function begin(service: ServiceName, trouble: Trouble): Promise<void> {
  await proxyOf(service).set(FAULTS[trouble]);
  // what it has of Keystone it keeps: only a compute that has just started must ask
  if (service === 'keystone') await restartCompute([override()]);
  if (PASSING.includes(trouble)) void sleep(AWAY_MS).then(() => proxyOf(service).set('none'));
}

async function measure(name: string, service: ServiceName, trouble: Trouble, limitMs: number): Promise<string> {
  const operation = OPERATIONS[name];
  if (!operation && name !== 'create') throw new Error(`no operation ${name}`);
  const server = operation && (await preparedServer(operation));
  await begin(service, trouble);
  const began = Date.now();
  const id = server?.id ?? (await beginServer());
  const outcome = await outcomeOf(id, (server && operation.perform(server)) ?? Promise.resolve(), limitMs);
  const { requests } = proxyOf(service);
  await proxyOf(service).set('none');
  console.log(
    `CELL | ${name} | ${service} | ${trouble} | ${outcome} | ${requests} requests | ${Math.round((Date.now() - began) / 1000)} s`,
  );
  return outcome;
}

const NO_NETWORK = 'Build of instance ID aborted: Failed to allocate the network(s), not rescheduling.';

const EXPECTED: readonly (readonly [string, ServiceName, Trouble, string])[] = [
  ['create', 'neutron', 'answers 500', `ERROR, fault "${NO_NETWORK}"`],
  ['create', 'keystone', 'is down', `ERROR, fault "${NO_NETWORK}"`],
  ['create', 'conductor', 'is away', 'ACTIVE'],
  ['hard reboot', 'engine', 'answers 500', 'ACTIVE, compute_reboot_instance Error'],
  ['hard reboot', 'neutron', 'answers 500', 'ACTIVE, compute_reboot_instance Error'],
  ['hard reboot', 'conductor', 'is away', 'ACTIVE'],
  ['delete', 'conductor', 'is away', 'DELETED'],
  ['stop', 'conductor', 'errs', 'SHUTOFF'],
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
  it.each(EXPECTED)('%s with %s which %s', async (name, service, trouble, expected) => {
    expect(await measure(name, service, trouble, 120_000)).toBe(expected);
  });
});

const wanted = process.env['OUTAGE_CELLS'];
describe.runIf(wanted !== undefined)('measured', () => {
  const cells = (wanted ?? '').split(';').map((cell) => cell.split(',') as [string, ServiceName, Trouble]);
  it.each(cells)('%s with %s which %s', async (name, service, trouble) => {
    await measure(name, service, trouble, trouble === 'is slow' ? 500_000 : 180_000);
  });
});
