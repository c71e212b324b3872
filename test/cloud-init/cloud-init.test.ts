// Debian's cloud-init as an unprivileged container on our engine: what the compute tells a guest is what the guest makes of itself,
// with a config drive, through the engine's socket, and by the templates of LXD images.
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cloudInitData } from '#src/compute/guest/cloud-init.ts';
import { configDrive } from '#src/compute/guest/metadata/config-drive.ts';
import type { MetadataFacts } from '#src/compute/guest/metadata/facts.ts';
import { networkData } from '#src/compute/guest/metadata/network-data.ts';
import { parseNetworkInfo, type Vif } from '#src/nova/network-model.ts';
import type { GuestData, SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { execIn } from '../integration/guest-exec.ts';
import { debianCloudRoot } from '../integration/images.ts';
import { describeWith } from '../integration/support.ts';
import { type RunningEngine, startEngine } from '../integration/virt-lxd/engines.ts';

const run = promisify(execFile);
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me@example';
const MAC = 'fa:16:3e:aa:bb:cc';
const SUBNET = {
  cidr: '10.66.0.0/20',
  dns: [{ address: '10.66.0.53' }],
  gateway: { address: '10.66.0.1' },
  ips: [{ address: '10.66.1.5' }],
  routes: [{ cidr: '192.168.0.0/16', gateway: { address: '10.66.0.9' } }],
  version: 4,
  meta: {},
};
/** What images of LXD's servers bring along. */
const TEMPLATES: Readonly<Record<string, string>> = {
  'meta-data':
    'instance-id: {{ container.name }}\nlocal-hostname: {{ container.name }}\n{{ config_get("user.meta-data", "") }}\n',
  'user-data': '{{ config_get("user.user-data", properties.default) }}\n',
  'vendor-data': '{{ config_get("user.vendor-data", properties.default) }}\n',
  'network-config': '{{ config_get("user.network-config", "") }}\n',
};

describeWith({ root: true, commands: ['lxc-start', 'mmdebstrap', 'tar'] }, 'cloud-init of Debian', () => {
  let engine: RunningEngine;
  let driver: LxdDriver;
  let folder: string;

  const signal = () => AbortSignal.timeout(120_000);
  const vifs = parseNetworkInfo(
    JSON.stringify([
      {
        id: 'port',
        address: MAC,
        devname: 'tapport',
        type: 'bridge',
        network: { id: 'net', subnets: [SUBNET], meta: { mtu: 1400 } },
      },
    ]),
  );

  beforeAll(async () => {
    const root = await debianCloudRoot();
    folder = await mkdtemp(join(tmpdir(), 'cloud-init-'));
    engine = await startEngine('lighterd');
    driver = new LxdDriver({
      log: silentLog,
      host: new LinuxHost(),
      options: {
        ...DEFAULT_OPTIONS,
        endpoint: { kind: 'unix', socketPath: engine.socketPath },
        stateFolder: join(folder, 'state'),
      },
    });
    await driver.start(signal());
    await pack(join(folder, 'plain.tar'), root, {});
    await pack(join(folder, 'templates.tar'), root, TEMPLATES);
  });

  afterAll(async () => {
    await driver.stop();
    await engine[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** A unified image; metadata.yaml first, and all of it in place of a copy of the root. */
  async function pack(file: string, root: string, templates: Readonly<Record<string, string>>): Promise<void> {
    const scratch = await mkdtemp(join(folder, 'image-'));
    await mkdir(join(scratch, 'templates'));
    for (const [name, content] of Object.entries(templates))
      await writeFile(join(scratch, 'templates', `${name}.tpl`), content);
    const described = Object.keys(templates).map((name) => [
      `/var/lib/cloud/seed/nocloud-net/${name}`,
      { when: ['create', 'copy'], template: `${name}.tpl`, properties: { default: '#cloud-config\n{}' } },
    ]);
    const metadata = {
      architecture: process.arch === 'arm64' ? 'aarch64' : 'x86_64',
      creation_date: 1,
      templates: Object.fromEntries(described),
    };
    await writeFile(join(scratch, 'metadata.yaml'), JSON.stringify(metadata));
    const rename = ['--transform', 's,^debian-cloud-init,rootfs,'];
    const skipped = ['var/lib/apt/lists', 'var/cache', 'usr/share/doc', 'usr/share/locale'];
    const without = skipped.map((name) => `--exclude=debian-cloud-init/${name}/*`);
    const where = ['-C', scratch, 'metadata.yaml', 'templates', '-C', dirname(root), 'debian-cloud-init'];
    await run('tar', ['-cf', file, '--numeric-owner', ...without, ...rename, ...where]);
    await rm(scratch, { recursive: true });
  }

  function specOf(image: string): SpawnSpec {
    const uuid = randomUUID();
    return {
      uuid,
      name: `instance-${uuid.slice(0, 8)}`,
      displayName: 'cloudy',
      hostname: 'cloudy',
      projectId: 'project',
      userId: 'user',
      flavor: { vcpus: 2, memoryMib: 1024, rootGib: 4, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
      image: {
        id: image,
        cacheKey: image,
        name: image,
        diskFormat: 'raw',
        containerFormat: 'bare',
        sizeBytes: null,
        properties: {},
        open: async () => createReadStream(join(folder, image)),
      },
    };
  }

  function guestOf(spec: SpawnSpec, told: readonly Vif[], { hasDrive }: { readonly hasDrive: boolean }): GuestData {
    const script = '#!/bin/sh\necho "ran as $(id -un)" > /root/told\n';
    const facts: MetadataFacts = {
      uuid: spec.uuid,
      displayName: 'cloudy',
      hostname: 'cloudy.example.org',
      launchIndex: 0,
      availabilityZone: 'nova',
      projectId: 'project',
      metadata: {},
      devices: [],
      userData: hasDrive ? Buffer.from(script) : gzipSync(script),
      keyName: 'mine',
      keyPair: { name: 'mine', type: 'ssh', publicKey: KEY },
      keyData: KEY,
      adminPassword: 'secret',
      files: [{ path: '/etc/injected', content: Buffer.from('hello') }],
      dedicatedCpus: [],
      network: networkData(told),
      vendorData: vendorData(),
      ec2: {
        instanceId: 'i-1',
        imageId: null,
        kernelId: null,
        ramdiskId: null,
        reservationId: null,
        flavorName: 'f',
        securityGroups: [],
        address: '10.66.1.5',
        floatingAddress: null,
        blockDevices: {},
      },
    };
    return {
      cloudInit: cloudInitData(facts, told),
      configDrive: hasDrive ? configDrive(facts, new Set()) : null,
      files: hasDrive ? [] : facts.files,
      rootKey: null,
    };
  }

  function vendorData() {
    const data = {
      'cloud-init': '#cloud-config\nlocale: false\nwrite_files:\n- {path: /etc/from-vendor, content: vendor}\n',
    };
    return { static: data, all: { static: data } };
  }

  /** Booted, cloud-init done. Disposed of, it leaves nothing. */
  async function boot(image: string, hasDrive: boolean) {
    const spec = specOf(image);
    const peer = `ci${spec.uuid.slice(0, 8)}`;
    const gone = new AsyncDisposableStack();
    await run('ip', ['link', 'add', peer, 'type', 'veth', 'peer', 'name', `${peer}g`]);
    gone.defer(async () => void (await run('ip', ['link', 'del', peer]).catch(() => undefined)));
    gone.defer(() => driver.destroy(spec.uuid, signal()));
    await run('ip', ['addr', 'add', '10.66.0.1/20', 'dev', peer]);
    await run('ip', ['link', 'set', peer, 'up']);
    const nic = { vifId: 'port', macAddress: MAC, mtu: 1400, hostInterface: `${peer}g`, guestInterface: 'eth0' };
    const guest = guestOf(spec, vifs, { hasDrive });
    const since = performance.now();
    await driver.spawn(spec, { network: async () => [nic], guest: async () => guest }, signal());
    const sh = async (command: string) => (await execIn(engine.client, spec.name, ['sh', '-c', command])).stdout.trim();
    const done = async () => ((await sh('cat /run/cloud-init/result.json 2>/dev/null')) === '' ? undefined : true);
    await poll(done, 500, AbortSignal.timeout(180_000));
    console.log(`${image}, drive: ${hasDrive}: ${Math.round(performance.now() - since)} ms until cloud-init was done`);
    return { sh, [Symbol.asyncDispose]: () => gone.disposeAsync() };
  }

  it.each([
    ['a config drive', 'plain.tar', true, /ConfigDrive/],
    ["LXD's socket", 'plain.tar', false, /LXD/],
    ['the templates of an image', 'templates.tar', false, /NoCloud/],
    ['a drive, though the image has templates', 'templates.tar', true, /ConfigDrive|NoCloud/],
  ])('takes from %s its name, key, network, files and programs', async (_what, image, hasDrive, source) => {
    await using booted = await boot(image, hasDrive);
    const { sh } = booted;

    const result = JSON.parse(await sh('cat /run/cloud-init/result.json')).v1;
    expect(result).toMatchObject({ errors: [], datasource: expect.stringMatching(source) as string });
    expect(await sh('hostname')).toBe('cloudy');
    expect(await sh('cat /home/debian/.ssh/authorized_keys')).toContain(KEY);
    expect(await sh('cat /root/told')).toBe('ran as root');
    expect(await sh('cat /etc/injected')).toBe('hello');
    expect(await sh('cat /etc/from-vendor')).toBe('vendor');
    expect(await sh('ip -4 -o addr show eth0')).toContain('10.66.1.5/20');
    expect(await sh('ip route')).toContain('default via 10.66.0.1');
    expect(await sh('ip route')).toContain('192.168.0.0/16 via 10.66.0.9');
    expect(await sh('cat /sys/class/net/eth0/mtu')).toBe('1400');
    await run('ping', ['-c', '1', '-W', '5', '10.66.1.5']);
  });
});
