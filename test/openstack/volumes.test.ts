// Volumes of a real Cinder (its NFS driver) in servers of a real Nova.
import { renameSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { execIn } from '../integration/guest-exec.ts';
import { OTHER_BACK_END, shareFolder, startCinder } from './lab/cinder.ts';
import type { Server } from './lab/cloud.ts';
import { waitForStatus } from './lab/first-server.ts';
import { startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { actionsOf, activeServer, cloud, deleteServer, engine, lab, paths, processes } from './lab/suite.ts';
import {
  askCinder,
  connectedFiles,
  newVolume,
  notedVolumes,
  VOLUME_WAIT_MS as WAIT_MS,
  waitForVolume,
  waitUntilVolumeIsGone,
} from './lab/volumes.ts';

const GIB = 1024 ** 3;
const SECTOR = 'dd bs=512 count=1';
let before: Residue;

const attachmentsPath = (server: string) => `/servers/${server}/os-volume_attachments`;

async function attach(server: string, volumeId: string, tag?: string): Promise<string> {
  const body = { volumeAttachment: { volumeId, ...(tag !== undefined && { tag }) } };
  const answer = await cloud.post<{ volumeAttachment: { device: string } }>(
    cloud.compute,
    attachmentsPath(server),
    body,
  );
  return answer.volumeAttachment.device;
}

async function detach(server: string, volumeId: string): Promise<void> {
  await cloud.delete(cloud.compute, `${attachmentsPath(server)}/${volumeId}`);
  await waitForVolume(volumeId, 'available');
}

async function attachedTo(server: string): Promise<number> {
  const path = attachmentsPath(server);
  return (await cloud.get<{ volumeAttachments: readonly unknown[] }>(cloud.compute, path)).volumeAttachments.length;
}

const nameOf = (server: Server): string => server['OS-EXT-SRV-ATTR:instance_name'];
async function inGuest(server: Server, command: string): Promise<string> {
  const { code, stdout } = await execIn(engine, nameOf(server), ['sh', '-c', command]);
  expect(code, `${command}: ${stdout}`).toBe(0);
  return stdout.trim();
}

beforeAll(async () => {
  await startCinder(paths, processes);
  before = await takeResidue(cloud, paths);
});

afterAll(async () => {
  await expectNothingLeft(before, 30_000);
  expect(await connectedFiles()).toEqual([]);
  expect(notedVolumes()).toEqual([]);
});

describe('a volume of a running server', () => {
  let server: Server;
  let volume: string;
  let device: string;

  it('is a block device in the guest, which writes to it', async () => {
    [server, volume] = await Promise.all([activeServer({ name: 'disks', network: 'none' }), newVolume('data')]);

    device = await attach(server.id, volume);
    const { attachments } = await waitForVolume(volume, 'in-use');

    expect(device).toBe('/dev/sdb');
    expect(attachments).toMatchObject([{ server_id: server.id }]);
    await inGuest(server, `printf kept | ${SECTOR} conv=sync of=${device} && sync`);
    expect(await inGuest(server, `stat -c %F ${device}`)).toBe('block special file');
  });

  it('is there after a hard reboot, and after the volume was somewhere else', async () => {
    await cloud.action(server.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');

    await detach(server.id, volume);
    expect(await inGuest(server, `test ! -e ${device}; echo $?`)).toBe('0');
    expect(await connectedFiles()).toEqual([]);
    await attach(server.id, volume, 'database');
    await waitForVolume(volume, 'in-use');

    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');
  });

  /** As administrators and Cinder do it. */
  const swap = (newVolume: string): Promise<unknown> =>
    cloud.compute.request({
      method: 'PUT',
      path: `${attachmentsPath(server.id)}/${volume}`,
      body: { volumeAttachment: { volumeId: newVolume } },
    });
  const newestEvents = async () => (await actionsOf(server.id))[0]?.events.map(({ event, result }) => [event, result]);

  it('is not swapped for another one while a program of the guest has it open', async () => {
    const other = await newVolume('other');
    await inGuest(server, `(exec 3<>${device}; exec sleep 600 >/dev/null 2>&1 & echo $! > /run/holder)`);

    await swap(other);
    await waitForVolume(other, 'available');
    await waitForVolume(volume, 'in-use');

    expect(await newestEvents()).toEqual([['compute_swap_volume', 'Error']]);
    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');
    await inGuest(server, 'kill $(cat /run/holder)');
    await askCinder('DELETE', `/volumes/${other}`);
  });

  it('is swapped for another one, which has what it had', async () => {
    const other = await newVolume('other');

    await swap(other);
    await waitForVolume(volume, 'available');
    await waitForVolume(other, 'in-use');

    expect(await newestEvents()).toEqual([['compute_swap_volume', 'Success']]);
    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');
    expect((await connectedFiles()).map((file) => file.slice(-36))).toEqual([other]);
    await askCinder('DELETE', `/volumes/${volume}`);
    volume = other;
  });

  it('is there again after the compute was killed while it swapped it', async () => {
    const other = await newVolume('other');

    await swap(other);
    await expect.poll(connectedFiles, { timeout: WAIT_MS, interval: 20 }).toHaveLength(2);
    await processes.kill('nova-compute-lxd');
    startCompute(paths, processes);
    await waitForConsumer(processes);
    await waitForVolume(other, 'available');
    await waitForVolume(volume, 'in-use');

    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');
    expect((await connectedFiles()).map((file) => file.slice(-36))).toEqual([volume]);
    await askCinder('DELETE', `/volumes/${other}`);
  });

  it('moves to another back end of Cinder, and is the same volume', async () => {
    const migrate = { 'os-migrate_volume': { host: OTHER_BACK_END, force_host_copy: false, lock_volume: false } };
    await askCinder('POST', `/volumes/${volume}/action`, migrate);

    for (const deadline = Date.now() + WAIT_MS; ; await sleep(250)) {
      const { volume: now } = await askCinder<{ volume: Record<string, unknown> }>('GET', `/volumes/${volume}`);
      if (now['migration_status'] === 'success') {
        expect([now['status'], now['os-vol-host-attr:host']]).toEqual(['in-use', OTHER_BACK_END]);
        break;
      }
      if (now['migration_status'] === 'error' || Date.now() > deadline)
        throw new Error(`the migration is in ${String(now['migration_status'])}`);
    }

    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');
    await cloud.action(server.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    expect(await inGuest(server, `${SECTOR} if=${device} | tr -d '\\0'`)).toBe('kept');
    await detach(server.id, volume);
    expect(await connectedFiles()).toEqual([]);
    await askCinder('DELETE', `/volumes/${volume}`);
    volume = await newVolume('data');
    await attach(server.id, volume);
    await waitForVolume(volume, 'in-use');
    await inGuest(server, `printf kept | ${SECTOR} conv=sync of=${device} && sync`);
  });

  it('grows under the guest', async () => {
    // Cinder's NFS driver does not extend what is attached: the lab does, and tells Nova as Cinder would
    truncateSync(join(shareFolder(paths), `volume-${volume}`), 2 * GIB);
    const event = { name: 'volume-extended', server_uuid: server.id, tag: volume };
    await cloud.post(cloud.compute, '/os-server-external-events', { events: [event] });

    for (const deadline = Date.now() + WAIT_MS; ; await sleep(250)) {
      if ((await inGuest(server, `blockdev --getsize64 ${device}`)) === String(2 * GIB)) break;
      if (Date.now() > deadline) throw new Error('the device did not grow');
    }
    const [newest] = await actionsOf(server.id);
    expect(newest?.events.map(({ event, result }) => [event, result])).toEqual([['compute_extend_volume', 'Success']]);
  });

  it('is available when an attachment fails, and nothing of it stays', async () => {
    const broken = await newVolume('broken');
    const file = join(shareFolder(paths), `volume-${broken}`);
    renameSync(file, `${file}.away`);

    await attach(server.id, broken);
    await waitForVolume(broken, 'available');

    expect(await attachedTo(server.id)).toBe(1);
    expect((await connectedFiles()).filter((name) => name.includes(broken))).toEqual([]);
    const [newest] = await actionsOf(server.id);
    expect(newest?.events.map(({ event, result }) => [event, result])).toEqual([['compute_attach_volume', 'Error']]);
    renameSync(`${file}.away`, file);
    await askCinder('DELETE', `/volumes/${broken}`);
  });

  it('is available when the server is deleted', async () => {
    await deleteServer(server.id);

    await waitForVolume(volume, 'available');
    expect(await connectedFiles()).toEqual([]);
    // as Cinder knows it
    truncateSync(join(shareFolder(paths), `volume-${volume}`), GIB);
  });

  it('comes with a new server, and ends with it when that was wanted', async () => {
    const refs = await lab();
    const root = { source_type: 'image', destination_type: 'local', uuid: refs.image, boot_index: 0 };
    const data = { source_type: 'volume', destination_type: 'volume', uuid: volume, boot_index: -1 };
    const id = await cloud.createServer({
      name: 'born with a disk',
      imageRef: refs.image,
      flavorRef: refs.flavor,
      networks: 'none',
      block_device_mapping_v2: [
        { ...root, delete_on_termination: true },
        { ...data, delete_on_termination: true },
      ],
    });
    const made = await waitForStatus(cloud, id, 'ACTIVE');
    if (!made) throw new Error('the server disappeared');

    expect(await inGuest(made, `${SECTOR} if=/dev/sdb | tr -d '\\0'`)).toBe('kept');
    await waitForVolume(volume, 'in-use');
    await deleteServer(id);

    await waitUntilVolumeIsGone(volume);
  });
});

describe('a volume of a server with lxd:volume_mount', () => {
  it('is a file system in the guest, which no kernel of the host reads, and is swapped like another', async () => {
    const metadata = { 'lxd:volume_mount': '/volumes', 'lxd:volume_format': 'true' };
    const [server, volume] = await Promise.all([
      activeServer({ name: 'mounted', network: 'none', metadata }),
      newVolume('data'),
    ]);
    const attachments = `${attachmentsPath(server.id)}/${volume}`;

    await attach(server.id, volume, 'database');
    await waitForVolume(volume, 'in-use');
    const place = '/volumes/database';
    expect(await inGuest(server, `grep " ${place} " /proc/mounts | cut -d' ' -f3`)).toBe('fuse');
    await inGuest(server, `echo kept > ${place}/file`);

    await cloud.action(server.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    expect(await inGuest(server, `cat ${place}/file`)).toBe('kept');

    await inGuest(server, `cd ${place} && (sleep 600 >/dev/null 2>&1 & echo $! > /run/holder)`);
    await cloud.delete(cloud.compute, attachments);
    await waitForVolume(volume, 'in-use');
    expect((await actionsOf(server.id))[0]?.events.map(({ result }) => result)).toEqual(['Error']);
    await inGuest(server, 'kill $(cat /run/holder)');

    const other = await newVolume('other');
    await cloud.compute.request({
      method: 'PUT',
      path: attachments,
      body: { volumeAttachment: { volumeId: other } },
    });
    await waitForVolume(volume, 'available');
    await waitForVolume(other, 'in-use');
    expect(await inGuest(server, `cat ${place}/file`)).toBe('kept');

    await detach(server.id, other);
    expect(await inGuest(server, `ls ${place}`)).toBe('');
    await deleteServer(server.id);
    for (const one of [volume, other]) await askCinder('DELETE', `/volumes/${one}`);
    for (const one of [volume, other]) await waitUntilVolumeIsGone(one);
  });
});
