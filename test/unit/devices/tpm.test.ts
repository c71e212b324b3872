// type=tpm on a machine in memory; test/integration/devices/tpm.test.ts has a real one.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { tpm } from '#drivers/devices/tpm/tpm.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const forwards = { add: async () => undefined, remove: async () => undefined };
const owner = { project: 'default', name: 'c1', hostName: 'c1', idMap: null, devices: {} };
const signal = (): AbortSignal => AbortSignal.timeout(5000);
let sysfs: string;

beforeEach(async () => {
  sysfs = await mkdtemp(join(tmpdir(), 'sysfs-'));
  for (const [name, numbers] of Object.entries({ 'tpm/tpm3': '10:227', 'tpmrm/tpmrm3': '254:65539' })) {
    await mkdir(join(sysfs, 'class', name), { recursive: true });
    await writeFile(join(sysfs, 'class', name, 'dev'), `${numbers}\n`);
  }
});
afterEach(() => rm(sysfs, { recursive: true }));

function world() {
  const host = new FakeHost();
  host.files.set('/dev/vtpmx', '');
  host.on(/^swtpm /, 'New TPM device: /dev/tpm3 (major/minor = 10/227)\n');
  const paths = { devicesPath: '/devices', homesPath: '/homes', servedPath: '/served' };
  return { host, driver: tpm.create({ host, log: silentLog, forwards, sysfs, ...paths }) };
}

const device = (config: Readonly<Record<string, string>>) => ({
  owner,
  device: 'my,tpm',
  config: { type: 'tpm', ...config },
});

it('is made by swtpm, which outlives the daemon, and keeps its state with the instance', async () => {
  const { host, driver } = world();

  await driver.start(device({ path: '/dev/tpm0', pathrm: 'dev/tpmrm0' }), signal());

  const [made] = host.commands.filter(({ argv }) => argv[0] === 'swtpm');
  expect(made?.argv.join(' ')).toBe(
    'swtpm chardev --tpm2 --vtpm-proxy --tpmstate dir=/homes/c1/tpm.my%2Ctpm --pid file=/homes/c1/tpm.my%2Ctpm/swtpm.pid --daemon',
  );
  expect(made?.options.lasting).toBe(true);
  expect(host.calls.filter((line) => line.startsWith('mknod'))).toEqual([
    'mknod /devices/c1/unix.my,tpm.dev-tpm0 char 10 227',
    'mknod /devices/c1/unix.my,tpm.dev-tpmrm0 char 254 65539',
  ]);
  expect(host.calls).not.toContainEqual(expect.stringContaining('modprobe'));
});

it('has no second node where none is wanted', async () => {
  const { host, driver } = world();

  await driver.start(device({ path: '/dev/tpm0' }), signal());

  expect(host.calls.filter((line) => line.startsWith('mknod'))).toHaveLength(1);
});

it('says what the host lacks', async () => {
  const { host, driver } = world();
  host.files.delete('/dev/vtpmx');
  host.fail(/^modprobe/, 'not found');

  const started = driver.start(device({ path: '/dev/tpm0' }), signal());

  await expect(started).rejects.toMatchObject({
    kind: 'unsupported',
    message: expect.stringContaining('tpm_vtpm_proxy'),
  });
  expect(host.commands.some(({ argv }) => argv[0] === 'swtpm')).toBe(false);
});

it.each([
  [{}, 'A tpm device needs "path"'],
  [{ path: '/dev/tpm0', mode: '0600' }, 'Invalid device option "mode"'],
  [{ path: '../tpm0' }, 'Invalid value for device option "path"'],
])('refuses %j', (config, complaint) => {
  expect(() => world().driver.validate({ type: 'tpm', ...config })).toThrow(complaint);
});
