// The compute on a real Nova: time per build, many at once, memory, and messages per build.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import amqp from 'amqplib';
import { waitForStatus } from '../openstack/lab/first-server.ts';
import { rabbitctl } from '../openstack/lab/infrastructure.ts';
import { PORTS } from '../openstack/lab/settings.ts';
import { cloud, deleteServer, lab, type NewServer, newServer, paths, processes } from '../openstack/lab/suite.ts';
import { StockCompute } from './stock-compute.ts';
import { atMost, median, residentMib, type Row, secondsOf } from './stats.ts';

const ROUNDS = 20;
const MANY = 20;
/** Between two builds: the agents have tidied up after the deleted one by then. */
const SETTLE_MS = 2500;
const ACTIVE_LIMIT_MS = 240_000;

/** What a stock compute sends for one create, without heartbeats (recorded wire of Zed: create_nic_none, create_network). */
const STOCK = { conductorNone: 12, conductorPort: 17, neutronPort: 17 } as const;

interface LogLine {
  readonly message: string;
  readonly instance?: string;
  readonly ms?: number;
}

/**
 * Waits until all servers of this name (or numbered from it) are ACTIVE. The short list costs no request to Neutron, unlike a
 * server's own page: the watching must not load what is measured.
 */
async function waitUntilActive(name: string, count: number, pauseMs = 400): Promise<readonly string[]> {
  const ask = async (status: string) => {
    const path = `/servers?name=${name}&status=${status}`;
    return (await cloud.get<{ servers: readonly { id: string }[] }>(cloud.compute, path)).servers;
  };
  const deadline = Date.now() + ACTIVE_LIMIT_MS;
  for (;;) {
    const active = await ask('ACTIVE');
    if (active.length === count) return active.map(({ id }) => id);
    if ((await ask('ERROR')).length > 0) throw new Error(`a server ${name} is in ERROR`);
    if (Date.now() > deadline)
      throw new Error(`${active.length} of ${count} servers ${name} are ACTIVE after ${ACTIVE_LIMIT_MS / 1000} s`);
    await sleep(pauseMs);
  }
}

/** What the compute measured of one build: all of it, and what of it was waiting for Neutron's agent. */
function buildOf(id: string): { total: number; waited: number } {
  const lines = readFileSync(processes.logFile('nova-compute-lxd'), 'utf8')
    .split('\n')
    .filter((line) => line.includes('"instance built"') || line.includes('"waited for Neutron"'))
    .map((line) => JSON.parse(line) as LogLine);
  const built = lines.findIndex(({ instance }) => instance === id);
  const total = lines[built]?.ms;
  if (total === undefined) throw new Error(`no "instance built" of ${id} in the compute's log`);
  const before = lines[built - 1];
  return { total, waited: before?.message === 'waited for Neutron' ? (before.ms ?? 0) : 0 };
}

/** One server after the other: `measure` is called when it is ACTIVE. */
async function oneByOne(network: NewServer['network'], measure: (id: string) => void): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    const id = await newServer({ name: `bench-${round}`, ...(network && { network }) });
    await waitUntilActive(`bench-${round}$`, 1);
    measure(id);
    await deleteServer(id);
    await sleep(SETTLE_MS);
  }
}

/** Seconds from the cast to `active` saved, as the compute measured them, one build at a time. */
async function buildTimes(network: NewServer['network']): Promise<{ total: number; own: number }> {
  const totals: number[] = [];
  const own: number[] = [];
  await oneByOne(network, (id) => {
    const { total, waited } = buildOf(id);
    totals.push(total / 1000);
    own.push((total - waited) / 1000);
  });
  return { total: median(totals), own: median(own) };
}

/** The same of Nova's own compute, which makes no guest and waits for no agent. */
async function stockTimes(): Promise<{ one: number; many: number }> {
  await using stock = new StockCompute();
  await stock.start();
  const times: number[] = [];
  await oneByOne('port', (id) => times.push(stock.secondsOf(id)));
  return { one: median(times), many: await manyAtOnce('port') };
}

async function manyAtOnce(network: NewServer['network']): Promise<number> {
  const name = 'bench-many';
  let ids: readonly string[] = [];
  const seconds = await secondsOf(async () => {
    await newServer({ name, count: MANY, ...(network && { network }) });
    // seldom: on two cores the questions would take a good part of what nova-api has left
    ids = await waitUntilActive(name, MANY, 1000);
  });
  await Promise.all(ids.map((id) => deleteServer(id)));
  return seconds;
}

async function memory(): Promise<readonly Row[]> {
  const pids = { compute: processes.pid('nova-compute-lxd') ?? 0, engine: processes.pid('lighterd') ?? 0 };
  const sample = () => ({ compute: residentMib(pids.compute), engine: residentMib(pids.engine) });
  const cycle = async (index: number) => {
    const id = await newServer({ name: `bench-cycle-${index}`, network: 'none' });
    await waitForStatus(cloud, id, 'ACTIVE');
    await deleteServer(id);
  };
  let half = sample().compute;
  for (let index = 0; index < 100; index += 2) {
    await Promise.all([cycle(index), cycle(index + 1)]);
    if (index === 48) half = sample().compute;
  }
  const full = sample();
  return [
    atMost('memory of the compute after 100 cycles', full.compute, 110, 'MiB'),
    atMost('memory of the engine after 100 cycles', full.engine, 90, 'MiB'),
    atMost('growth of the compute, cycle 50 to 100', full.compute - half, 3, 'MiB'),
  ];
}

interface TracedMessage {
  readonly method?: string;
  readonly _context_request_id?: string;
  readonly args?: { readonly objmethod?: string };
}

/** Conductor calls of one create, seen by the broker's own tracer. */
async function conductorCalls(network: NewServer['network']): Promise<number> {
  await rabbitctl(paths, 'trace_on');
  const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${PORTS.rabbitmq}/`);
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, 'amq.rabbitmq.trace', 'publish.nova');
  const calls = new Map<string, number>();
  await channel.consume(
    queue,
    (message) => {
      const keys = message?.properties.headers?.['routing_keys'] as readonly string[] | undefined;
      if (!message || keys?.[0] !== 'conductor') return;
      const outer = JSON.parse(message.content.toString()) as { 'oslo.message': string };
      const inner = JSON.parse(outer['oslo.message']) as TracedMessage;
      const request = inner._context_request_id ?? '';
      if (inner.method?.startsWith('object_')) calls.set(request, (calls.get(request) ?? 0) + 1);
    },
    { noAck: true },
  );
  const id = await newServer({ name: 'bench-calls', ...(network && { network }) });
  await waitForStatus(cloud, id, 'ACTIVE');
  await sleep(1000);
  const path = `/servers/${id}/os-instance-actions`;
  const body = await cloud.get<{ instanceActions: readonly { request_id: string }[] }>(cloud.compute, path);
  await connection.close();
  await rabbitctl(paths, 'trace_off');
  await deleteServer(id);
  return calls.get(body.instanceActions.at(-1)?.request_id ?? '') ?? 0;
}

/** Requests of one create in Neutron's log: those that name the request of the create. */
async function neutronRequests(): Promise<number> {
  const id = await newServer({ name: 'bench-neutron' });
  await waitForStatus(cloud, id, 'ACTIVE');
  await sleep(1000);
  const path = `/servers/${id}/os-instance-actions`;
  const body = await cloud.get<{ instanceActions: readonly { request_id: string }[] }>(cloud.compute, path);
  const request = body.instanceActions.at(-1)?.request_id ?? 'none';
  await deleteServer(id);
  const fromApi = /GET \/v2\.0\/(networks\?id=|security-groups\?fields|quotas)/;
  return readFileSync(processes.logFile('neutron-server'), 'utf8')
    .split('\n')
    .filter((line) => line.includes(request) && /"(GET|POST|PUT|DELETE) \/v2\.0/.test(line) && !fromApi.test(line))
    .length;
}

export async function benchCompute(): Promise<readonly Row[]> {
  await lab();
  const warm = await newServer({ name: 'bench-warm', network: 'none' });
  await waitForStatus(cloud, warm, 'ACTIVE');
  await deleteServer(warm);
  const none = await buildTimes('none');
  const port = await buildTimes('port');
  const calls = { none: await conductorCalls('none'), port: await conductorCalls('port') };
  const neutron = await neutronRequests();
  const many = { none: await manyAtOnce('none'), port: await manyAtOnce('port') };
  const ourMemory = await memory();
  const stock = await stockTimes();
  return [
    atMost('cast to active, no network, median of 20', none.total, 0.35, 's'),
    atMost("cast to active with a port, without the agent's own time", port.own, 0.6, 's'),
    atMost("the same ÷ a stock compute's, which makes no guest", port.own / stock.one, 1, '×'),
    measured("cast to active with a port, with the agent's time", port.total),
    measured('cast to active with a port, stock compute, no guest, no agent', stock.one),
    atMost('20 servers at once, no network', many.none, 15, 's'),
    atMost('20 servers at once, with ports', many.port, 15, 's'),
    measured('20 servers at once with ports, stock compute, no guest, no agent', stock.many),
    atMost('conductor calls of a create without network', calls.none, STOCK.conductorNone, 'calls'),
    atMost('conductor calls of a create with a port', calls.port, STOCK.conductorPort, 'calls'),
    atMost('Neutron requests of a create with a port', neutron, STOCK.neutronPort, 'requests'),
    ...ourMemory,
  ];
}

function measured(what: string, seconds: number): Row {
  return { what, measured: `${seconds.toFixed(3)} s`, target: '', met: true };
}
