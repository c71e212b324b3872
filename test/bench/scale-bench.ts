// The compute on a real Nova with much to do: 200 guests on one host, 50 builds at once, 100 simulated hosts in one process.
import { mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { services } from '../openstack/lab/first-server.ts';
import { IDLE_INIT, makeBusyboxRootTarball } from '../integration/images.ts';
import { sql } from '../openstack/lab/infrastructure.ts';
import { bin, overrideFile } from '../openstack/lab/node.ts';
import { say } from '../openstack/lab/progress.ts';
import { ensureImage } from '../openstack/lab/resources.ts';
import { COMPUTE_HOST } from '../openstack/lab/settings.ts';
import { cloud, lab, newServer, paths, processes } from '../openstack/lab/suite.ts';
import { atMost, residentMib, type Row, secondsOf } from './stats.ts';

const COMPUTE = 'nova-compute-lxd';
const SIMULATED = 'simulated-hosts';
const GUESTS = 200;
const AT_ONCE = 50;
const HOSTS = 100;
/** A request for two hundred may take nova-api longer than anybody waits. */
const PER_REQUEST = 25;
const LIMIT_MS = 900_000;
const IDLE_MS = 60_000;
const DELAY_FILE = join(paths.run, 'loop-delay.json');

interface LoopDelay {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** Also told at once: a run takes long, and may fail later. */
function measured(what: string, text: string): Row {
  say(`${what}: ${text}`);
  return { what, measured: text, target: '', met: true };
}
const number = async (statement: string): Promise<number> => Number(await sql(paths, statement));

/** Processor time of a process since it began, in seconds. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function pidOf(name: string): number {
  const pid = processes.pid(name);
  if (pid === undefined) throw new Error(`${name} does not run: see ${processes.logFile(name)}`);
  return pid;
}

async function loopDelay(pid: number): Promise<LoopDelay> {
  rmSync(DELAY_FILE, { force: true });
  process.kill(pid, 'SIGUSR2');
  for (let looks = 0; looks < 100; looks += 1) {
    await sleep(50);
    try {
      return JSON.parse(readFileSync(DELAY_FILE, 'utf8')) as LoopDelay;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' && !(error instanceof SyntaxError)) throw error;
    }
  }
  throw new Error(`process ${pid} does not tell its delays`);
}

/** In Nova's own words: asking its API for two hundred servers would be most of the load. */
async function inState(name: string, condition: string): Promise<number> {
  return await number(
    `SELECT COUNT(*) FROM nova.instances WHERE deleted = 0 AND display_name LIKE '${name}%' AND ${condition}`,
  );
}

/** Servers for which no host was found are in a cell of their own. */
async function unplaced(name: string): Promise<number> {
  const servers = `nova_cell0.instances WHERE deleted = 0 AND display_name LIKE '${name}%'`;
  return await number(`SELECT COUNT(*) FROM ${servers}`);
}

/** Guests that do nothing: two hundred that print a line a second are a load of their own. */
async function idleImage(): Promise<string> {
  const tarball = join(paths.data, 'busybox-idle.tar.gz');
  await makeBusyboxRootTarball(tarball, IDLE_INIT);
  return await ensureImage(cloud, 'busybox-idle', tarball);
}

/** Servers until they are ACTIVE; `watch` is called all the while. */
async function build(name: string, count: number, watch: () => Promise<void> = async () => {}): Promise<number> {
  const image = await idleImage();
  const before = await inState(name, "vm_state = 'active'");
  return await secondsOf(async () => {
    for (let made = 0; made < count; made += PER_REQUEST) {
      await newServer({ name, image, network: 'none', count: Math.min(PER_REQUEST, count - made) });
      await watch();
    }
    for (const deadline = Date.now() + LIMIT_MS; ; await sleep(500)) {
      await watch();
      if ((await inState(name, "vm_state = 'active'")) === before + count) return;
      if ((await inState(name, "vm_state = 'error'")) + (await unplaced(name)) > 0)
        throw new Error(`a server ${name} is in ERROR`);
      if (Date.now() > deadline) throw new Error(`servers ${name} are not ACTIVE after ${LIMIT_MS / 1000} s`);
    }
  });
}

async function requestDeletions(name: string, condition: string): Promise<number> {
  const statement = `SELECT uuid FROM nova.instances WHERE deleted = 0 AND display_name LIKE '${name}%' AND ${condition}`;
  const ids = (await sql(paths, statement)).split('\n').filter((line) => line !== '');
  for (let index = 0; index < ids.length; index += 10) {
    await Promise.all(ids.slice(index, index + 10).map((id) => cloud.delete(cloud.compute, `/servers/${id}`)));
  }
  return ids.length;
}

/** A conductor that has no connection to its database left fails a deletion: it is asked for again, as a user would. */
async function deleteAll(name: string): Promise<{ readonly seconds: number; readonly repeated: number }> {
  let repeated = 0;
  const seconds = await secondsOf(async () => {
    await requestDeletions(name, 'TRUE');
    for (const deadline = Date.now() + LIMIT_MS; (await inState(name, 'TRUE')) > 0; await sleep(500)) {
      if (Date.now() > deadline) throw new Error(`servers ${name} are not gone after ${LIMIT_MS / 1000} s`);
      repeated += await requestDeletions(name, "vm_state = 'error' AND task_state IS NULL");
    }
  });
  return { seconds, repeated };
}

/** Seconds since the last report of the host, by the database's clock. */
async function heartbeatAge(): Promise<number> {
  const age = 'TIMESTAMPDIFF(SECOND, last_seen_up, UTC_TIMESTAMP())';
  return await number(
    `SELECT ${age} FROM nova.services WHERE host = '${COMPUTE_HOST}' AND \`binary\` = 'nova-compute'`,
  );
}

/** Two hundred servers that idle are more than the lab's few processors and its memory are to hold otherwise. */
function roomyFiles(): readonly string[] {
  const roomy = overrideFile(
    paths,
    'roomy',
    '[DEFAULT]\ncpu_allocation_ratio = 200\nram_allocation_ratio = 20\ndisk_allocation_ratio = 20\n',
  );
  return ['--config-file', paths.computeConf, '--config-file', roomy];
}

async function startWatched(): Promise<void> {
  await processes.stop(COMPUTE);
  const module = fileURLToPath(new URL('./loop-delay.mjs', import.meta.url));
  process.env['NODE_OPTIONS'] = '';
  const argv = [bin(COMPUTE), ...roomyFiles()] as const;
  const env = { NODE_OPTIONS: `--import=${module}`, LOOP_DELAY_FILE: DELAY_FILE };
  await startAndWait({ name: COMPUTE, argv, env }, 'compute is up');
}

/** Resolves when the log has that message; the seconds that it took. */
async function startAndWait(spec: Parameters<typeof processes.start>[0], message: string): Promise<number> {
  const log = processes.logFile(spec.name);
  let begin = 0;
  try {
    begin = statSync(log).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return await secondsOf(async () => {
    processes.start(spec);
    const isThere = async () => readFileSync(log).subarray(begin).includes(`"message":"${message}"`);
    await processes.waitFor(spec.name, isThere, 300_000);
  });
}

async function fiftyAtOnce(name: string): Promise<readonly Row[]> {
  const pid = pidOf(COMPUTE);
  let most = 0;
  let oldest = 0;
  await loopDelay(pid);
  const cpu = cpuSeconds(pid);
  const seconds = await build(name, AT_ONCE, async () => {
    most = Math.max(most, await inState(name, "task_state IN ('block_device_mapping', 'spawning')"));
    oldest = Math.max(oldest, await heartbeatAge());
  });
  const used = cpuSeconds(pid) - cpu;
  const delay = await loopDelay(pid);
  return [
    measured(`${AT_ONCE} servers at once, no network: all ACTIVE`, `${seconds.toFixed(1)} s`),
    measured('processor time of the compute for them', `${used.toFixed(2)} s`),
    measured(
      'delay of its event loop meanwhile, median and longest',
      `${delay.p50.toFixed(1)} ms, ${delay.max.toFixed(0)} ms`,
    ),
    atMost('delay of its event loop meanwhile, p99', delay.p99, 100, 'ms'),
    atMost('age of the last heartbeat (every 3 s) meanwhile, at most', oldest, 6, 's'),
    atMost('builds under way at the same time (max_concurrent_builds = 10)', most, 10, 'builds'),
  ];
}

async function manyGuests(): Promise<readonly Row[]> {
  const name = 'scale-guest';
  await startWatched();
  const rows = [...(await fiftyAtOnce(name))];
  while ((await inState(name, 'TRUE')) < GUESTS) await build(name, AT_ONCE);
  say(`${GUESTS} guests`);
  await processes.stop(COMPUTE);
  const spec = { name: COMPUTE, argv: [bin(COMPUTE), ...roomyFiles()] as const };
  const start = await startAndWait(spec, 'compute is up');
  const pid = pidOf(COMPUTE);
  const startCpu = cpuSeconds(pid);
  await sleep(5000);
  const cpu = cpuSeconds(pid);
  await sleep(IDLE_MS);
  const idle = cpuSeconds(pid) - cpu;
  const resident = residentMib(pid);
  const removal = await deleteAll(name);
  return [
    ...rows,
    atMost(`start of the compute with ${GUESTS} guests`, start, 5, 's'),
    measured('processor time of that', `${startCpu.toFixed(2)} s`),
    atMost(`processor time in ${IDLE_MS / 1000} s with ${GUESTS} guests`, idle, 1, 's'),
    measured('resident memory then', `${resident.toFixed(1)} MiB`),
    deletionRow(`deletion of the ${GUESTS}`, removal),
  ];
}

function deletionRow(what: string, { seconds, repeated }: Awaited<ReturnType<typeof deleteAll>>): Row {
  return measured(what, `${seconds.toFixed(1)} s${repeated === 0 ? '' : `, ${repeated} asked for twice`}`);
}

async function setDisabled(isDisabled: boolean): Promise<void> {
  const row = (await services(cloud)).find(({ host, binary }) => host === COMPUTE_HOST && binary === 'nova-compute');
  await cloud.compute.request({
    method: 'PUT',
    path: `/os-services/${row?.id}`,
    body: { status: isDisabled ? 'disabled' : 'enabled' },
    headers: { 'X-OpenStack-Nova-API-Version': '2.92' },
  });
}

async function hostsUp(prefix: string): Promise<number> {
  const mapped = `SELECT COUNT(*) FROM nova.compute_nodes WHERE deleted = 0 AND mapped = 1 AND host LIKE '${prefix}-%'`;
  return await number(mapped);
}

async function forgetHosts(prefix: string): Promise<void> {
  for (const { id, host, binary } of await services(cloud)) {
    if (binary !== 'nova-compute' || !host.startsWith(`${prefix}-`)) continue;
    await cloud.delete(cloud.compute, `/os-services/${id}`);
  }
}

/** Two hundred servers on them, and away again. */
async function loadOf(pid: number): Promise<readonly Row[]> {
  const name = 'scale-load';
  const before = cpuSeconds(pid);
  const building = await build(name, GUESTS);
  const used = cpuSeconds(pid) - before;
  const perHost = `SELECT COUNT(*) AS n FROM nova.instances
    WHERE deleted = 0 AND display_name LIKE '${name}%' GROUP BY host`;
  const spread = await sql(paths, `SELECT MIN(n), MAX(n), COUNT(*) FROM (${perHost}) AS hosts`);
  const [least, greatest, hosts] = spread.trim().split('\t');
  return [
    measured(
      `${GUESTS} servers on them: all ACTIVE`,
      `${building.toFixed(1)} s, ${used.toFixed(2)} s of processor time`,
    ),
    measured('how they were spread', `${least} to ${greatest} on each of ${hosts} hosts`),
    measured('resident memory then', `${residentMib(pid).toFixed(0)} MiB`),
    deletionRow('their deletion', await deleteAll(name)),
  ];
}

async function providersOf(prefix: string): Promise<number> {
  type Answer = { readonly resource_providers: readonly { readonly name: string }[] };
  const { resource_providers: all } = await cloud.get<Answer>(cloud.placement, '/resource_providers');
  return all.filter(({ name }) => name.startsWith(`${prefix}-`)).length;
}

async function manyHosts(): Promise<readonly Row[]> {
  const prefix = `load${Date.now().toString(36)}`;
  const state = join(paths.data, prefix);
  mkdirSync(state, { recursive: true });
  const fake = `[fake]\nhosts = ${HOSTS}\nvcpus = 16\n`;
  const text = `[DEFAULT]\ncompute_driver = fake\nhost = ${prefix}\nstate_path = ${state}\n${fake}`;
  const files = [paths.computeConf, overrideFile(paths, SIMULATED, text)].flatMap((file) => ['--config-file', file]);
  const up = await startAndWait({ name: SIMULATED, argv: [bin(COMPUTE), ...files] }, 'simulated hosts are up');
  const pid = pidOf(SIMULATED);
  try {
    const startCpu = cpuSeconds(pid);
    const mapped =
      up +
      (await secondsOf(async () => {
        while ((await hostsUp(prefix)) < HOSTS) await sleep(500);
      }));
    const rows = [
      measured(
        `${HOSTS} simulated hosts: all have started, all are mapped to the cell`,
        `${up.toFixed(1)} s, ${mapped.toFixed(1)} s`,
      ),
      measured('processor time of the start', `${startCpu.toFixed(2)} s`),
    ];
    await sleep(10_000);
    const cpu = cpuSeconds(pid);
    await sleep(IDLE_MS);
    rows.push(
      measured(`processor time in ${IDLE_MS / 1000} s of idling`, `${(cpuSeconds(pid) - cpu).toFixed(2)} s`),
      measured('resident memory then', `${residentMib(pid).toFixed(0)} MiB`),
    );
    await setDisabled(true);
    rows.push(...(await loadOf(pid)));
    await processes.stop(SIMULATED, 60_000);
    await forgetHosts(prefix);
    return [...rows, atMost('resource providers left', await providersOf(prefix), 0, '')];
  } finally {
    await processes.stop(SIMULATED, 60_000);
    await setDisabled(false);
    rmSync(state, { recursive: true, force: true });
  }
}

export async function benchScale(parts: readonly string[]): Promise<readonly Row[]> {
  await lab();
  const wants = (part: string) => parts.length === 0 || parts.includes(part);
  const guests = wants('guests') ? await manyGuests() : [];
  const hosts = wants('hosts') ? await manyHosts() : [];
  return [...guests, ...hosts];
}
