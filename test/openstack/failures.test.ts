// What goes wrong, and what the user then sees: as a stock Nova would have it, with nothing left behind.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Server } from './lab/cloud.ts';
import { startAgent, startNeutronServer } from './lab/control-plane.ts';
import { rabbitctl, sql, startRabbit } from './lab/infrastructure.ts';
import { addressOf, ping, services, waitForPing, waitForStatus } from './lab/first-server.ts';
import { overrideFile, startCompute, startEngine, waitForConsumer } from './lab/node.ts';
import { httpAnswers } from './lab/processes.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { uploadImage } from './lab/resources.ts';
import { SecondNode } from './lab/second-node.ts';
import { PORTS } from './lab/settings.ts';
import { actionsOf, activeServer, cloud, deleteServer, lab, newServer, paths, processes } from './lab/suite.ts';

let before: Residue;
const created: string[] = [];
const images: string[] = [];

async function failedServer(options: Parameters<typeof newServer>[0]): Promise<Server> {
  const id = await newServer(options);
  created.push(id);
  const server = await waitForStatus(cloud, id, 'ERROR');
  if (!server) throw new Error('the server disappeared');
  return server;
}

async function imageOf(name: string, content: Buffer): Promise<string> {
  const file = join(paths.data, `image-${name}`);
  writeFileSync(file, content);
  const id = await uploadImage(cloud, name, file);
  images.push(id);
  return id;
}

/** A root of its own, so that no cache knows it. */
function rootTarball(): Buffer {
  return readFileSync(join(paths.data, 'busybox-rootfs.tar.gz'));
}

/** A server whose build the compute finds when Neutron is gone already: nova-api itself refuses to create one then. */
async function createWhileStopped(name: string): Promise<string> {
  const compute = processes.pid('nova-compute-lxd') ?? 0;
  process.kill(compute, 'SIGSTOP');
  try {
    const id = await newServer({ name });
    created.push(id);
    const inCell = async () => await sql(paths, `SELECT COUNT(*) FROM nova.instances WHERE uuid = '${id}'`);
    await expect.poll(inCell, { timeout: 30_000 }).toBe('1\n');
    await sleep(2000);
    await processes.stop('neutron-server');
    return id;
  } finally {
    process.kill(compute, 'SIGCONT');
  }
}

async function restartCompute(extra: readonly string[] = []): Promise<void> {
  await processes.stop('nova-compute-lxd');
  startCompute(paths, processes, extra);
  await waitForConsumer(processes);
}

/** Waits for a heartbeat later than now; the time of one is cut to seconds. */
async function computeReports(): Promise<void> {
  const since = Date.now();
  await expect
    .poll(
      async () => {
        const rows = await services(cloud);
        const row = rows.find(({ host, binary }) => host === 'node1' && binary === 'nova-compute');
        return row?.state === 'up' && Date.parse(`${row.updated_at}Z`) >= since;
      },
      { timeout: 60_000, interval: 500 },
    )
    .toBe(true);
}

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

afterEach(async () => {
  await Promise.all(created.splice(0).map((id) => deleteServer(id)));
  for (const id of images.splice(0)) await cloud.delete(cloud.image, `/v2/images/${id}`);
});

afterAll(async () => {
  await expectNothingLeft(before, 60_000);
});

describe('images', () => {
  it('of an unknown format are refused, and no other host is tried', async () => {
    const image = await imageOf(
      'garbage',
      Buffer.from(createHash('sha512').update('garbage').digest('hex').repeat(100)),
    );

    const server = await failedServer({ name: 'garbage', image, network: 'none' });

    expect(server.fault?.message).toMatch(/Build of instance .* aborted: Image .* is unacceptable/);
  });

  it('in formats of virtual machines are refused', async () => {
    const image = await imageOf(
      'qcow2',
      Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(65_536)]),
    );

    const server = await failedServer({ name: 'qcow2', image });

    expect(server.fault?.message).toMatch(/is unacceptable: .*qcow2/);
  });

  it('that end too early are refused', async () => {
    const tarball = rootTarball();
    const image = await imageOf('truncated', tarball.subarray(0, tarball.length >> 1));

    const server = await failedServer({ name: 'truncated', image, network: 'none' });

    expect(server.fault?.message).toMatch(/is unacceptable/);
  });

  it('that rotted in Glance are refused', async () => {
    const image = await imageOf('rotten', Buffer.concat([rootTarball(), Buffer.from('rotten')]));
    const stored = join(paths.data, 'glance/images', image);
    const bytes = readFileSync(stored);
    bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 0xff, bytes.length >> 1);
    writeFileSync(stored, bytes);

    const server = await failedServer({ name: 'rotten', image, network: 'none' });

    expect(server.fault?.message).toMatch(/corrupt|unacceptable/i);
  });
});

describe('the node', () => {
  it('without its engine builds nothing, and works again when the engine is back', async () => {
    const running = await activeServer({ name: 'survivor' });
    created.push(running.id);
    const address = addressOf(running) ?? '';
    await processes.kill('lighterd');
    try {
      const failed = await failedServer({ name: 'no-engine', network: 'none' });

      expect(failed.fault?.message).toMatch(/aborted: the container engine does not answer$/);
      await waitForPing(address, (await lab()).network);
    } finally {
      await startEngine(paths, processes);
    }
    expect(await ping(address, (await lab()).network)).toBe(true);
    created.push((await activeServer({ name: 'engine-back', network: 'none' })).id);
  });

  it('gives up when Neutron does not plug the interface', async () => {
    const override = overrideFile(paths, 'impatient', '[DEFAULT]\nvif_plugging_timeout = 5\n');
    await restartCompute([override]);
    await processes.stop('neutron-linuxbridge-agent');
    try {
      const server = await failedServer({ name: 'unplugged' });

      expect(server.fault?.message).toMatch(/aborted: Failed to allocate the network\(s\), not rescheduling/);
    } finally {
      startAgent(paths, processes, 'neutron-linuxbridge-agent');
      await restartCompute();
    }
    created.push((await activeServer({ name: 'plugged' })).id);
  });

  it('gives up when Neutron is down, and works again when it is back', async () => {
    const id = await createWhileStopped('no-neutron');
    try {
      // nova-api asks Neutron as well to show a server: the database tells
      await expect
        .poll(() => sql(paths, `SELECT vm_state FROM nova.instances WHERE uuid = '${id}'`), { timeout: 180_000 })
        .toBe('error\n');
    } finally {
      startNeutronServer(paths, processes);
      await processes.waitFor('neutron-server', () => httpAnswers(`http://127.0.0.1:${PORTS.neutron}/`));
    }
    const server = await waitForStatus(cloud, id, 'ERROR');
    expect(server?.fault?.message).toMatch(/aborted: Failed to allocate the network/);
    created.push((await activeServer({ name: 'neutron-back' })).id);
  });

  it('comes back by itself when RabbitMQ was restarted', async () => {
    await processes.stop('rabbitmq', 40_000);
    await startRabbit(paths, processes);
    await computeReports();
    // a cast to a queue that nobody has made yet is lost
    const consumers = async () => await rabbitctl(paths, 'list_queues', 'name', 'consumers');
    await expect.poll(consumers, { timeout: 60_000, interval: 1000 }).toMatch(/^compute\.node1\s+1$/mu);

    created.push((await activeServer({ name: 'rabbit-back' })).id);
  });
});

describe('a second host', () => {
  it('with a full disk hands the build over to the first', async () => {
    await using second = new SecondNode(cloud, { paths, processes }, 'node2');
    await second.start({ gibibytes: 400 });
    await second.fillDisk();

    // it has more memory, processors and (as it reported) disk free, so the scheduler takes it first
    const server = await activeServer({ name: 'handed-over', network: 'none' });
    created.push(server.id);
    const forced = await failedServer({ name: 'full', network: 'none', host: second.host });

    expect(forced.fault?.message).toMatch(/Exceeded maximum number of retries/);
    expect(server['OS-EXT-SRV-ATTR:host']).toBe('node1');
    const [create] = await actionsOf(server.id);
    const builds = create?.events.filter(({ event }) => event === 'compute__do_build_and_run_instance') ?? [];
    expect(builds.map(({ host }) => host).toSorted()).toEqual(['node1', 'node2']);
    await Promise.all(created.splice(0).map((id) => deleteServer(id)));
    await second.forget();
  });
});
