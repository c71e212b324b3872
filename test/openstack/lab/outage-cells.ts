// Services that are away, answer 500, or take their time, as the compute alone sees it: proxies are between it and them.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startCinder } from './cinder.ts';
import { type Fault, FaultProxy } from './fault-proxy.ts';
import { FAULTY_EXCHANGE, FaultyConductor } from './faulty-conductor.ts';
import { overrideFile, startCompute, waitForConsumer } from './node.ts';
import { beginServer, OPERATIONS, outcomeOf, preparedServer, removeAll } from './operations.ts';
import { expectNothingLeft, type Residue, takeResidue } from './residue.ts';
import { PORTS } from './settings.ts';
import { cloud, paths, processes } from './suite.ts';

const HTTP = {
  keystone: PORTS.keystone,
  placement: PORTS.placement,
  glance: PORTS.glance,
  neutron: PORTS.neutron,
  cinder: PORTS.cinder,
};
export type ServiceName = keyof typeof HTTP | 'engine' | 'conductor';
/** 'is away' is down when the operation begins, 'errs' answers 500 then; both are as usual after a while. */
export type Trouble = Fault | 'is away' | 'errs';
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
/** Thirty answers, one after the other, and what comes after. */
const MEASURED_MS = 30 * SLOW_MS + 180_000;

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

/** In a file of tests: proxies, a compute that goes through them, and nothing left behind. */
function useProxies(): void {
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
    await expectNothingLeft(before, 60_000);
  });
}

async function begin(service: ServiceName, trouble: Trouble): Promise<void> {
  await proxyOf(service).set(FAULTS[trouble]);
  // what it has of Keystone it keeps: only a compute that has just started must ask
  if (service === 'keystone') await restartCompute([override()]);
  if (PASSING.includes(trouble)) void sleep(AWAY_MS).then(() => proxyOf(service).set('none'));
}

/** Of operations that are asked for at the same time, each of a server of its own: what they come to, in their order. */
async function measure(
  names: readonly string[],
  service: ServiceName,
  trouble: Trouble,
  limitMs: number,
): Promise<readonly string[]> {
  const asked: { name: string; ask: () => Promise<string> }[] = [];
  for (const name of names) asked.push({ name, ask: await prepared(name, limitMs) });
  await begin(service, trouble);
  const outcomes = asked.map(async ({ name, ask }) => {
    const began = Date.now();
    const outcome = await ask();
    const { requests } = proxyOf(service);
    const seconds = Math.round((Date.now() - began) / 1000);
    console.log(`CELL | ${name} | ${service} | ${trouble} | ${outcome} | ${requests} requests | ${seconds} s`);
    return outcome;
  });
  try {
    return await Promise.all(outcomes);
  } finally {
    await proxyOf(service).set('none');
  }
}

/** Asks for it, and waits for what it comes to. */
async function prepared(name: string, limitMs: number): Promise<() => Promise<string>> {
  if (name === 'create') return async () => await outcomeOf(await beginServer(), Promise.resolve(), limitMs);
  const operation = OPERATIONS[name];
  if (!operation) throw new Error(`no operation ${name}`);
  const server = await preparedServer(operation);
  return async () => await outcomeOf(server.id, operation.perform(server), limitMs);
}

/** Operation, service, its trouble, and what the user sees then. */
export type Cell = readonly [operation: string, service: ServiceName, trouble: Trouble, outcome: string];

/** `limitMs`: for a server to come to where it stays. */
export function describeOutages(cells: readonly Cell[], limitMs: number): void {
  useProxies();
  describe('while a service fails', () => {
    it.each(cells)('%s with %s which %s', async (name, service, trouble, expected) => {
      expect(await measure([name], service, trouble, limitMs)).toEqual([expected]);
    });
  });
}

/** `wanted`: OPERATION,SERVICE,TROUBLE;… with several operations at a time as OPERATION+OPERATION. Prints what they come to. */
export function measureOutages(wanted: string): void {
  const cells = wanted.split(';').map((cell) => cell.split(',') as [string, ServiceName, Trouble]);
  describe('measured', () => {
    it.each(cells)('%s with %s which %s', { timeout: MEASURED_MS + 300_000 }, async (names, service, trouble) => {
      await measure(names.split('+'), service, trouble, MEASURED_MS);
    });
  });
}
