// The host as operators see and switch it, and what no container can do, on a real Nova.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Server } from './lab/cloud.ts';
import { services } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { COMPUTE_HOST } from './lab/settings.ts';
import { actionsOf, activeServer, cloud, deleteServer, paths } from './lab/suite.ts';

const PLACEMENT = { 'OpenStack-API-Version': 'placement 1.36' };

interface Hypervisor {
  readonly id: string;
  readonly hypervisor_hostname: string;
  readonly uptime: string | null;
  readonly service: { readonly host: string };
}

let before: Residue;
let host: Hypervisor;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  const { hypervisors } = await cloud.get<{ hypervisors: readonly Hypervisor[] }>(
    cloud.compute,
    '/os-hypervisors/detail',
  );
  const found = hypervisors.find(({ service }) => service.host === COMPUTE_HOST);
  if (!found) throw new Error('the host is not there');
  host = found;
});

afterAll(async () => {
  await expectNothingLeft(before, 60_000);
});

async function traits(): Promise<readonly string[]> {
  const path = `/resource_providers/${host.id}/traits`;
  return (await cloud.get<{ traits: readonly string[] }>(cloud.placement, path, PLACEMENT)).traits;
}

async function setStatus(status: 'enabled' | 'disabled'): Promise<void> {
  const own = (await services(cloud)).find((row) => row.binary === 'nova-compute' && row.host === COMPUTE_HOST);
  await cloud.compute.request({
    method: 'PUT',
    path: `/os-services/${own?.id}`,
    body: { status },
    headers: { 'OpenStack-API-Version': 'compute 2.92', 'X-OpenStack-Nova-API-Version': '2.92' },
  });
}

describe('the host', () => {
  it('tells for how long it has been up', () => {
    expect(host.uptime).toMatch(/^up \d+ days?, \d+:\d\d/);
  });

  it('is taken out of scheduling when its service is disabled, and comes back', async () => {
    await setStatus('disabled');
    try {
      expect(await traits()).toContain('COMPUTE_STATUS_DISABLED');
    } finally {
      await setStatus('enabled');
    }
    expect(await traits()).not.toContain('COMPUTE_STATUS_DISABLED');
  });
});

describe('a server', () => {
  let server: Server;

  beforeAll(async () => {
    server = await activeServer({ name: 'limits', network: 'none' });
  });
  afterAll(() => deleteServer(server.id));

  /** The result of an action that Nova's API accepts, and the compute does not. */
  async function failed(action: string): Promise<void> {
    await expect
      .poll(async () => (await actionsOf(server.id))[0], { timeout: 60_000, interval: 300 })
      .toMatchObject({ action, message: 'Error' });
    await expect
      .poll(async () => await cloud.server(server.id), { timeout: 60_000, interval: 300 })
      .toMatchObject({ status: 'ACTIVE', 'OS-EXT-STS:task_state': null });
  }

  it.each([
    ['vnc', 'novnc'],
    ['spice', 'spice-html5'],
    ['mks', 'webmks'],
  ])('has no %s console', async (protocol, type) => {
    const wish = { remote_console: { protocol, type } };

    await expect(cloud.post(cloud.compute, `/servers/${server.id}/remote-consoles`, wish)).rejects.toMatchObject({
      status: 400,
      message: expect.stringContaining(type) as string,
    });
  });

  it('takes no crash dump, and goes on', async () => {
    await cloud.action(server.id, { trigger_crash_dump: null });

    await failed('trigger_crash_dump');
  });

  it('is not migrated live, and goes on', async () => {
    await cloud.action(server.id, { 'os-migrateLive': { host: null, block_migration: 'auto' } });

    await failed('live-migration');
  });
});
