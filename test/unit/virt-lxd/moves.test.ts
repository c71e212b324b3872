// Where guests leave from, and what a ticket may say.
import { describe, expect, it } from 'vitest';
import { findReach } from '#drivers/virt/lxd/reach.ts';
import { packedDrive, readTicket, takenAlong, unpackedDrive } from '#drivers/virt/lxd/ticket.ts';
import type { Server } from '#src/client/wire.ts';

const signal = AbortSignal.timeout(1000);
const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';

function engineAt(listens: string, addresses: readonly string[] = [listens]) {
  let address = listens;
  const patches: unknown[] = [];
  const server = async (): Promise<Server> => ({
    api_extensions: [],
    api_version: '1.0',
    auth: 'trusted',
    config: { 'core.https_address': address },
    environment: {
      server: 'lxd',
      server_name: 'n',
      server_version: '5',
      kernel_architecture: 'x86_64',
      addresses,
      certificate: PEM,
    },
  });
  const request = async (
    _method: string,
    _path: string,
    { body }: { readonly body?: unknown } = {},
  ): Promise<never> => {
    patches.push(body);
    address = (body as { config: Record<string, string> }).config['core.https_address'] ?? '';
    return undefined as never;
  };
  return { server, request: request as never, patches };
}

describe('the address at which others fetch guests', () => {
  it('is the wanted one, on which an engine that listened nowhere is told to listen', async () => {
    const engine = engineAt('', []);

    const reach = await findReach(engine, { migrationAddress: '10.0.0.1:8443' }, signal);

    expect(reach).toEqual({ address: '10.0.0.1:8443', certificate: PEM });
    expect(engine.patches).toEqual([{ config: { 'core.https_address': '10.0.0.1:8443' } }]);
  });

  it.each(['10.0.0.1:8443', ':8443', '[::]:8443', '0.0.0.0:8443', '[::]', '10.0.0.1'])(
    'is the wanted one where the engine listens on %s',
    async (listens) => {
      const engine = engineAt(listens);

      const reach = await findReach(engine, { migrationAddress: '10.0.0.1:8443' }, signal);

      expect(reach).toMatchObject({ address: '10.0.0.1:8443' });
      expect(engine.patches).toEqual([]);
    },
  );

  it.each(['10.0.0.2:8443', '10.0.0.1:9443', ':9443'])('is refused where the engine listens on %s', async (listens) => {
    const found = findReach(engineAt(listens), { migrationAddress: '10.0.0.1:8443' }, signal);

    await expect(found).rejects.toMatchObject({ kind: 'invalid', message: expect.stringContaining(listens) });
  });

  it.each([
    ['10.0.0.1', ['192.168.0.1:8443', '10.0.0.1:8443'], { address: '10.0.0.1:8443' }],
    ['fd00::1', ['10.0.0.1:8443', '[fd00::1]:8443'], { address: '[fd00::1]:8443' }],
    ['10.0.0.1', ['10.0.0.10:8443'], { reason: expect.stringContaining('migration_address') }],
    [undefined, ['10.0.0.1:8443'], { reason: expect.stringContaining('migration_address') }],
  ])('is by itself that of %s among %j', async (myIp, addresses, reach) => {
    const options = { migrationAddress: null, ...(myIp !== undefined && { myIp }) };

    expect(await findReach(engineAt(':8443', addresses), options, signal)).toMatchObject(reach);
  });
});

describe('a ticket', () => {
  const good = {
    version: 1,
    operation: 'https://[fd00::1]:8443/1.0/operations/11111111-2222-4333-8444-555555555555',
    certificate: PEM,
    secrets: { control: 'a'.repeat(64), fs: 'b'.repeat(64) },
    architecture: 'x86_64',
    config: { 'image.os': 'Debian', 'user.user-data': '#cloud-config' },
    drive: { 'openstack/latest/meta_data.json': 'e30=' },
  };

  it('is read as it was made', () => {
    expect(readTicket(structuredClone(good))).toEqual(good);
  });

  it.each([
    ['of another version', { version: 2 }],
    ['that leads elsewhere on the peer', { operation: 'https://10.0.0.1:8443/1.0/instances' }],
    ['without TLS', { operation: good.operation.replace('https', 'http') }],
    ['with a user in its address', { operation: good.operation.replace('https://', 'https://u:p@') }],
    ['without a certificate', { certificate: '' }],
    ['without secrets', { secrets: {} }],
    ['with other configuration', { config: { 'raw.lxc': 'lxc.hook.start = /x' } }],
    ['with configuration of ours', { config: { 'user.nova.uuid': 'x' } }],
    ['with a drive that leads out of itself', { drive: { 'openstack/../../x': '' } }],
    ['with a drive elsewhere', { drive: { '/etc/passwd': '' } }],
    ['with a drive that is none', { drive: { a: '%%%' } }],
    ['with more in it', { devices: {} }],
  ])('%s is refused, and its secrets are not told', (_what, changes) => {
    const reading = () => readTicket({ ...good, ...changes });

    expect(reading).toThrow('not a ticket');
    expect(reading).not.toThrow(/aaaa|bbbb/);
  });

  it("takes along what is the guest's, and nothing else", () => {
    const own = { 'image.os': 'Debian', 'user.user-data': '#!/bin/sh', 'user.meta-data': 'a: b' };

    expect(takenAlong({ ...own, 'limits.cpu': '1', 'volatile.uuid': 'x', 'user.image.os': 'y' })).toEqual(own);
  });

  it('has the config drive byte for byte', () => {
    const files = [{ path: 'openstack/latest/user_data', content: Buffer.from([0, 255, 10, 128]) }];

    expect(unpackedDrive(packedDrive(files))).toEqual(files);
    expect(unpackedDrive(packedDrive(null))).toBeNull();
  });
});
