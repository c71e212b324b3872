// The engine against raw liblxc, on one machine in one run: start, stop, launch on overlay and on zfs.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createReadStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { EngineClient } from '#src/client/client.ts';
import { poll, sleep } from '#src/lib/wait.ts';
import { makeBusyboxImage, makeBusyboxRoot } from '../integration/images.ts';
import { unmountBelow } from '../integration/mounts.ts';
import { LXCFS, startEngine } from '../openstack/lab/node.ts';
import { Processes } from '../openstack/lab/processes.ts';
import { labPaths } from '../openstack/lab/settings.ts';
import { atMost, median, residentMib, type Row, secondsOf } from './stats.ts';

const execute = promisify(execFile);
const ROUNDS = 20;
const LIVES = 600;

/**
 * As somebody's start comes: by itself. Right after the end of a container, the kernel's grace periods are under way already, and a
 * start takes half the time or less, raw or not.
 */
const rest = () => sleep(100);

/** Median seconds of `lxc-start` of the same busybox root, unprivileged, with no engine in between. */
async function rawStart(scratch: string): Promise<number> {
  const root = join(scratch, 'raw-root');
  await makeBusyboxRoot(root);
  await execute('chown', ['-R', '1000000:1000000', root]);
  await execute('chmod', ['711', scratch]);
  const config = join(scratch, 'raw.conf');
  writeFileSync(
    config,
    [
      'lxc.uts.name = raw',
      `lxc.rootfs.path = dir:${root}`,
      'lxc.idmap = u 0 1000000 65536',
      'lxc.idmap = g 0 1000000 65536',
      'lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed',
      'lxc.net.0.type = empty',
      '',
    ].join('\n'),
  );
  const seconds: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await rest();
    const start = ['-n', 'bench-raw', '-P', scratch, '-f', config, '-d'];
    seconds.push(await secondsOf(() => execute('lxc-start', start)));
    await execute('lxc-stop', ['-n', 'bench-raw', '-P', scratch, '-k']);
  }
  return median(seconds);
}

async function uploadBusybox(engine: EngineClient, scratch: string): Promise<string> {
  const file = join(scratch, 'busybox.tar.gz');
  await makeBusyboxImage(file);
  const upload = await engine.images.upload({
    content: { kind: 'unified', tarball: createReadStream(file) },
    filename: 'busybox.tar.gz',
  });
  const operation = await upload.wait();
  return String(operation.metadata?.['fingerprint']);
}

async function launch(engine: EngineClient, name: string, image: string, pool: string): Promise<void> {
  const operation = await engine.instances.create({
    name,
    source: { type: 'image', fingerprint: image },
    devices: { root: { type: 'disk', path: '/', pool } },
    profiles: [],
    start: true,
  });
  await operation.wait();
}

async function remove(engine: EngineClient, name: string): Promise<void> {
  await (await engine.instances.setState(name, { action: 'stop', force: true, timeout: 0 })).wait();
  await (await engine.instances.remove(name)).wait();
}

async function launches(engine: EngineClient, image: string, pool: string): Promise<number> {
  await launch(engine, 'bench-warm', image, pool);
  await remove(engine, 'bench-warm');
  const seconds: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await rest();
    seconds.push(await secondsOf(() => launch(engine, 'bench-launch', image, pool)));
    await remove(engine, 'bench-launch');
  }
  return median(seconds);
}

async function startAndStop(engine: EngineClient, image: string): Promise<{ start: number; stop: number }> {
  await launch(engine, 'bench-power', image, 'default');
  const seconds = { start: [] as number[], stop: [] as number[] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const set = async (action: 'start' | 'stop') =>
      await (await engine.instances.setState('bench-power', { action, force: true, timeout: 0 })).wait();
    seconds.stop.push(await secondsOf(() => set('stop')));
    await rest();
    seconds.start.push(await secondsOf(() => set('start')));
  }
  await remove(engine, 'bench-power');
  return { start: median(seconds.start), stop: median(seconds.stop) };
}

/**
 * Growth of resident memory over the second half of many lives, MiB: its lowest value in the last quarter above that in the quarter
 * before the half. The heap is a sawtooth (5 MiB high, some 125 lives long), so two moments say nothing.
 */
async function growth(engine: EngineClient, image: string, pid: number): Promise<number> {
  const samples: number[] = [];
  for (let life = 0; life < LIVES; life += 1) {
    await launch(engine, 'bench-life', image, 'default');
    await remove(engine, 'bench-life');
    samples.push(residentMib(pid));
  }
  const quarter = LIVES / 4;
  return Math.min(...samples.slice(3 * quarter)) - Math.min(...samples.slice(quarter, 2 * quarter));
}

/** zfs-fuse says "dataset is busy" for a moment after an unmount. */
async function destroyed(dataset: string): Promise<void> {
  const destroy = async () => await execute('zfs', ['destroy', '-r', dataset]).then(() => true);
  await poll(() => destroy().catch(() => undefined), 100, AbortSignal.timeout(20_000));
}

/** What zfs takes by itself for the same work: a clone, mounted. */
async function rawZfsClone(dataset: string, mountpoint: string): Promise<number> {
  await execute('zfs', ['create', '-o', 'mountpoint=none', `${dataset}/bench-origin`]);
  await execute('zfs', ['snapshot', `${dataset}/bench-origin@s`]);
  const seconds: number[] = [];
  for (let round = 0; round < 10; round += 1) {
    const clone = ['clone', '-o', `mountpoint=${mountpoint}`, `${dataset}/bench-origin@s`, `${dataset}/bench-clone`];
    seconds.push(await secondsOf(() => execute('zfs', clone)));
    await destroyed(`${dataset}/bench-clone`);
  }
  await destroyed(`${dataset}/bench-origin`);
  return median(seconds);
}

/** Undefined when no ZFS answers on this machine. */
async function zfsRows(engine: EngineClient, image: string): Promise<readonly Row[]> {
  const hasZfs = await execute('zfs', ['list']).then(
    () => true,
    () => false,
  );
  if (!hasZfs) return [{ what: 'launch on zfs', measured: 'no zfs on this machine', target: '', met: true }];
  await engine.request('POST', '/1.0/storage-pools', {
    body: { name: 'bench-zfs', driver: 'zfs', config: { size: '2GiB' } },
  });
  try {
    const ours = await launches(engine, image, 'bench-zfs');
    const raw = await rawZfsClone('bench-zfs', join(tmpdir(), 'lighter-bench-clone'));
    return [atMost('launch on zfs (limit: 0.15 s + a mounted clone)', ours, 0.15 + raw, 's')];
  } finally {
    await engine.images.remove(image).then((operation) => operation.wait());
    await engine.request('DELETE', '/1.0/storage-pools/bench-zfs');
  }
}

export async function benchEngine(): Promise<readonly Row[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'lighter-bench-'));
  const paths = labPaths(scratch);
  const processes = new Processes(paths);
  await startEngine(paths, processes);
  const engine = new EngineClient({ endpoint: { kind: 'unix', socketPath: join(paths.engineFolder, 'unix.socket') } });
  try {
    const image = await uploadBusybox(engine, scratch);
    const raw = await rawStart(scratch);
    const { start, stop } = await startAndStop(engine, image);
    const overlay = await launches(engine, image, 'default');
    const grown = await growth(engine, image, processes.pid('lighterd') ?? 0);
    return [
      { what: 'raw lxc-start', measured: `${raw.toFixed(3)} s`, target: '', met: true },
      atMost('start of a stopped container (limit: 1.5 × raw)', start, 1.5 * raw, 's'),
      atMost('forced stop', stop, 0.15, 's'),
      atMost('launch on overlay', overlay, 0.15, 's'),
      atMost(`growth of the daemon's memory, life ${LIVES / 2} to ${LIVES}`, grown, 1, 'MiB'),
      ...(await zfsRows(engine, image)),
    ];
  } finally {
    engine.close();
    await processes.stop('lighterd');
    await processes.stop(LXCFS);
    await unmountBelow(scratch);
    rmSync(scratch, { recursive: true, force: true });
  }
}
