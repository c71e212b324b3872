// Servers of a real Nova whose root is a volume of a real Cinder (its NFS driver): as Horizon makes them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { execIn } from '../integration/guest-exec.ts';
import { shareFolder, startCinder } from './lab/cinder.ts';
import type { Server } from './lab/cloud.ts';
import { waitForStatus } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { cloud, deleteServer, engine, lab, paths, processes } from './lab/suite.ts';
import {
  askCinder,
  connectedFiles,
  newVolume,
  notedVolumes,
  waitForVolume,
  waitUntilVolumeIsGone,
} from './lab/volumes.ts';

const BOTTLE = '/root/message';
let before: Residue;

interface Root {
  readonly source_type: 'image' | 'volume' | 'snapshot';
  readonly uuid: string;
  readonly volume_size?: number;
  readonly delete_on_termination: boolean;
}

async function createOn(name: string, root: Root, fields: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const refs = await lab();
  return await cloud.createServer({
    name,
    imageRef: '',
    flavorRef: refs.flavor,
    networks: 'none',
    block_device_mapping_v2: [{ destination_type: 'volume', boot_index: 0, ...root }],
    ...fields,
  });
}

async function activeOn(name: string, root: Root): Promise<Server> {
  return await activeNow(await createOn(name, root));
}

async function activeNow(id: string, status = 'ACTIVE'): Promise<Server> {
  const server = await waitForStatus(cloud, id, status);
  if (!server) throw new Error(`server ${id} disappeared`);
  return server;
}

async function inGuest(server: Server, command: string): Promise<string> {
  const name = server['OS-EXT-SRV-ATTR:instance_name'];
  const { code, stdout } = await execIn(engine, name, ['sh', '-c', command]);
  expect(code, `${command}: ${stdout}`).toBe(0);
  return stdout.trim();
}

async function rootVolumeOf(server: Server): Promise<string> {
  const path = `/servers/${server.id}/os-volume_attachments`;
  const answer = await cloud.get<{ volumeAttachments: readonly { volumeId: string }[] }>(cloud.compute, path);
  return answer.volumeAttachments[0]?.volumeId ?? '';
}

async function failed(id: string): Promise<string> {
  const server = await activeNow(id, 'ERROR');
  await deleteServer(id);
  return server.fault?.message ?? '';
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

describe('a server on a volume that Nova has made from an image', () => {
  let server: Server;
  let volume: string;

  it('runs from the volume, with all the room that it has', async () => {
    const { image } = await lab();
    const root = { source_type: 'image', uuid: image, volume_size: 2, delete_on_termination: true } as const;
    server = await activeOn('on a volume', root);
    volume = await rootVolumeOf(server);

    await waitForVolume(volume, 'in-use');
    await inGuest(server, `printf kept > ${BOTTLE}`);
    expect(await inGuest(server, 'awk \'$2 == "/" { print $3 }\' /proc/mounts | tail -n 1')).toMatch(/^fuse/);
    expect(Number(await inGuest(server, "df -k / | awk 'END { print $2 }'"))).toBeGreaterThan(1_800_000);
  });

  it('keeps what is on it when it is stopped and started, and rebooted by force', async () => {
    await cloud.action(server.id, { 'os-stop': null });
    await waitForStatus(cloud, server.id, 'SHUTOFF');
    await cloud.action(server.id, { 'os-start': null });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('kept');

    await cloud.action(server.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, server.id, 'ACTIVE');

    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('kept');
  });

  it('has it in another flavor, and back', async () => {
    await cloud.action(server.id, { resize: { flavorRef: '2' } });
    await waitForStatus(cloud, server.id, 'VERIFY_RESIZE');
    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('kept');
    await cloud.action(server.id, { revertResize: null });
    await waitForStatus(cloud, server.id, 'ACTIVE');

    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('kept');
  });

  it('has it again after it was shelved, and nowhere', async () => {
    await cloud.action(server.id, { shelve: null });
    await waitForStatus(cloud, server.id, 'SHELVED_OFFLOADED');
    await waitForVolume(volume, 'reserved');
    expect(await connectedFiles()).toEqual([]);

    await cloud.action(server.id, { unshelve: null });
    server = await activeNow(server.id);

    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('kept');
    await waitForVolume(volume, 'in-use');
  });

  it('is rebuilt around it, and has what it had', async () => {
    const { image } = await lab();
    await cloud.action(server.id, { rebuild: { imageRef: image } });
    server = await activeNow(server.id);

    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('kept');
  });

  it('has nothing of that when Cinder has written the image over it', async () => {
    const { image } = await lab();
    await cloud.compute.request({
      method: 'POST',
      path: `/servers/${server.id}/action`,
      body: { rebuild: { imageRef: image } },
      headers: { 'OpenStack-API-Version': 'compute 2.93' },
    });
    server = await activeNow(server.id);

    expect(await inGuest(server, `test -e ${BOTTLE}; echo $?`)).toBe('1');
    expect(await rootVolumeOf(server)).toBe(volume);
  });

  it('takes the volume with it when it ends', async () => {
    await deleteServer(server.id);

    await waitUntilVolumeIsGone(volume);
  });
});

describe('a server on a volume that its user has made from an image', () => {
  let volume: string;

  it('leaves it behind with all that is on it, and the next one goes on from there', async () => {
    const { image } = await lab();
    volume = await newVolume('root', { imageRef: image });
    const root = { source_type: 'volume', uuid: volume, delete_on_termination: false } as const;
    const first = await activeOn('first', root);
    await inGuest(first, `printf first > ${BOTTLE}`);
    await deleteServer(first.id);
    await waitForVolume(volume, 'available');

    const second = await activeOn('second', root);

    expect(await inGuest(second, `cat ${BOTTLE}`)).toBe('first');
    await deleteServer(second.id);
    await waitForVolume(volume, 'available');
  });

  it('begins with what a snapshot of the volume has', async () => {
    const body = { snapshot: { volume_id: volume, name: 'of a root' } };
    const { snapshot } = await askCinder<{ snapshot: { id: string } }>('POST', '/snapshots', body);
    const root = { source_type: 'snapshot', uuid: snapshot.id, volume_size: 1, delete_on_termination: true } as const;

    const server = await activeOn('from a snapshot', root);

    expect(await inGuest(server, `cat ${BOTTLE}`)).toBe('first');
    const copy = await rootVolumeOf(server);
    await deleteServer(server.id);
    await waitUntilVolumeIsGone(copy);
    await askCinder('DELETE', `/snapshots/${snapshot.id}`);
  });
});

describe('a volume that nothing boots from', () => {
  it.each([
    ['is empty', '', /is empty/],
    ['has nothing known on it', 'no disk at all', /unknown format/],
  ])('is refused when it %s, and available again as it was', async (_what, content, reason) => {
    const volume = await newVolume('no root');
    if (content !== '') writeFileSync(join(shareFolder(paths), `volume-${volume}`), content, { flag: 'r+' });
    await askCinder('POST', `/volumes/${volume}/action`, { 'os-set_bootable': { bootable: true } });
    const root = { source_type: 'volume', uuid: volume, delete_on_termination: false } as const;

    expect(await failed(await createOn('without a root', root))).toMatch(reason);

    await waitForVolume(volume, 'available');
    expect(await connectedFiles()).toEqual([]);
    await askCinder('DELETE', `/volumes/${volume}`);
    await waitUntilVolumeIsGone(volume);
  });
});
