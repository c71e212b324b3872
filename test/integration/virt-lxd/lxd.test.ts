// The LXD driver on our engine, and on a real LXD and Incus where they are wanted: the contract, the image formats, what happens when the engine goes away.
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { access, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createReadStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair, Readable } from 'node:stream';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GuestData, type LifecycleEvent, POWER_STATE, type SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { kindOf } from '#src/lib/errors.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { virtContract } from '../../contract/virt/virt-contract.ts';
import { execIn } from '../guest-exec.ts';
import { makeBusyboxImage, makeBusyboxRootTarball } from '../images.ts';
import { describeWith } from '../support.ts';
import { chosenEngines, type EngineName, PROGRAMS, type RunningEngine, startEngine } from './engines.ts';

const run = promisify(execFile);
const TOOLS = ['busybox', 'xz', 'bzip2', 'zstd', 'mksquashfs'];

function driverOn(socketPath: string, stateFolder: string): LxdDriver {
  return new LxdDriver({
    log: silentLog,
    host: new LinuxHost(),
    options: { ...DEFAULT_OPTIONS, endpoint: { kind: 'unix', socketPath }, stateFolder },
  });
}

for (const name of chosenEngines(['lighterd', 'lxd']))
  describeWith({ root: true, commands: [PROGRAMS[name], ...TOOLS] }, `LXD driver on ${name}`, () => contract(name));
for (const name of chosenEngines(['lighterd']))
  describeWith({ root: true, commands: [PROGRAMS[name], ...TOOLS] }, `LXD driver on ${name}`, () => images(name));

function contract(name: EngineName): void {
  virtContract(`lxd, on ${name}`, async () => {
    const lxd = await startEngine(name);
    const folder = await mkdtemp(join(tmpdir(), 'virt-lxd-'));
    await makeBusyboxRootTarball(join(folder, 'root.tar.gz'));
    return {
      driver: driverOn(lxd.socketPath, join(folder, 'state')),
      rootfs: await readFile(join(folder, 'root.tar.gz')),
      limitMs: 60_000,
      async [Symbol.asyncDispose]() {
        await lxd[Symbol.asyncDispose]();
        await rm(folder, { recursive: true });
      },
    };
  });
}

function images(name: EngineName): void {
  describe('images', () => {
    let lxd: RunningEngine;
    let folder: string;
    let driver: LxdDriver;

    const signal = (): AbortSignal => AbortSignal.timeout(60_000);
    const file = (name: string): string => join(folder, name);
    const sh = async (command: string): Promise<unknown> => run('sh', ['-c', command], { cwd: folder });

    const specOf = (open: () => Readable): SpawnSpec => {
      const uuid = randomUUID();
      return {
        uuid,
        name: `instance-${uuid.slice(0, 8)}`,
        displayName: 'image',
        hostname: 'image-1',
        projectId: 'project',
        userId: 'user',
        flavor: { vcpus: 1, memoryMib: 64, rootGib: 1, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
        image: {
          id: randomUUID(),
          cacheKey: randomUUID(),
          name: 'image',
          diskFormat: 'raw',
          containerFormat: 'bare',
          sizeBytes: null,
          properties: {},
          open: async () => open(),
        },
      };
    };

    const spawnAndDestroy = async (name: string): Promise<void> => {
      const spec = specOf(() => createReadStream(file(name)));
      await driver.spawn(spec, { network: async () => [] }, signal());
      expect(await driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
      await driver.destroy(spec.uuid, signal());
    };

    beforeAll(async () => {
      lxd = await startEngine(name);
      folder = await mkdtemp(join(tmpdir(), 'virt-lxd-images-'));
      await makeBusyboxRootTarball(file('root.tar.gz'));
      await makeBusyboxImage(file('unified.tar.gz'));
      await sh(
        'gunzip -k root.tar.gz unified.tar.gz && xz -k root.tar unified.tar && bzip2 -k root.tar && zstd -q root.tar',
      );
      await sh('mkdir root && tar -C root -xf root.tar && mksquashfs root root.squashfs -quiet -no-progress');
      driver = driverOn(lxd.socketPath, file('state'));
      await driver.start(signal());
    });

    afterAll(async () => {
      await driver.stop();
      await lxd[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    });

    it.each([
      'root.tar',
      'root.tar.gz',
      'root.tar.xz',
      'root.tar.bz2',
      'root.tar.zst',
      'root.squashfs',
      'unified.tar.gz',
      'unified.tar.xz',
    ])('boots %s, whatever it was declared as', spawnAndDestroy);

    it('joins a terminal to the console, one at a time, for as long as it likes', async () => {
      const spec = specOf(() => createReadStream(file('root.tar.gz')));
      await driver.spawn(spec, { network: async () => [] }, signal());
      const shell = execIn(lxd.client, spec.name, ['sh', '-c', 'exec sh </dev/console >/dev/console 2>&1']);
      const sit = () => {
        const [ours, theirs] = duplexPair();
        const leave = new AbortController();
        let seen = '';
        ours.on('data', (chunk) => {
          seen += String(chunk);
        });
        return { ours, leave, seen: () => seen, ended: driver.openConsole(spec.uuid, theirs, leave.signal) };
      };

      const first = sit();
      await poll(() => first.seen().includes('tick') || undefined, 50, signal());
      first.ours.write('echo \x01q\x15echo first-$((40+2))\r');
      await poll(() => first.seen().includes('first-42') || undefined, 50, signal());
      const refused = await sit().ended.catch(kindOf);
      first.leave.abort();
      await first.ended;
      const second = sit();
      await poll(() => second.seen().includes('tick') || undefined, 50, signal());
      second.ours.write('exit\r');
      await shell;
      await driver.powerOff(spec.uuid, { graceSeconds: 0 }, signal());
      await second.ended;
      const stopped = await sit().ended.catch(kindOf);
      await driver.destroy(spec.uuid, signal());
      const absent = await sit().ended.catch(kindOf);

      // LXD does not tell why it ends
      expect(refused).toBe(name === 'lxd' ? undefined : 'conflict');
      expect([stopped, absent]).toEqual(['conflict', 'not_found']);
    });

    it('shows a config drive to root alone, puts files where they belong, and takes all away again', async () => {
      const spec = specOf(() => createReadStream(file('root.tar.gz')));
      const drive = join(file('state'), 'config-drives', spec.uuid);
      const guest: GuestData = {
        cloudInit: { metaData: 'a: 1\n', userData: '#!/bin/sh\n', vendorData: null, networkConfig: null },
        configDrive: [{ path: 'openstack/latest/meta_data.json', content: Buffer.from('{"a":1}') }],
        files: [{ path: '../opt/app/data', content: Buffer.from([0, 255, 10]) }],
        rootKey: 'ssh-rsa AAAA me',
      };
      const sh = async (command: string): Promise<string> =>
        (await execIn(lxd.client, spec.name, ['sh', '-c', command])).stdout;

      await driver.spawn(spec, { network: async () => [], guest: async () => guest }, signal());

      const looked = 'cd /config-drive/openstack/latest; cat meta_data.json; stat -c " %a %u %g" . meta_data.json';
      expect(await sh(looked)).toBe('{"a":1} 500 0 0\n 400 0 0\n');
      expect(await sh('touch /config-drive/x 2>&1; echo $?')).toMatch(/Read-only file system\n1\n$/);
      expect(await sh('mount -o remount,rw /config-drive 2>&1; touch /config-drive/x 2>/dev/null; echo $?')).toMatch(
        /1\n$/,
      );
      expect(await sh('stat -c "%a %u %g %s" /opt/app /opt/app/data')).toMatch(/^755 0 0 \d+\n644 0 0 3\n$/);
      const keys = 'stat -c "%a %u" /root/.ssh /root/.ssh/authorized_keys; cat /root/.ssh/authorized_keys';
      expect(await sh(keys)).toBe('700 0\n600 0\nssh-rsa AAAA me\n');

      await driver.powerOff(spec.uuid, { graceSeconds: 0 }, signal());
      await driver.powerOn(spec.uuid, [], signal());
      expect(await sh('cat /config-drive/openstack/latest/meta_data.json')).toBe('{"a":1}');
      await driver.removeLeftovers(signal());
      expect(await readdir(drive)).toEqual(['openstack']);
      await driver.destroy(spec.uuid, signal());
      expect(await readdir(join(file('state'), 'config-drives'))).toEqual([]);
    });

    it('puts no file out of the root file system, whatever links the image has', async () => {
      await sh(
        'mkdir evil && tar -C evil -xf root.tar && ln -s / evil/out && ln -s ../../../../tmp evil/up && tar -C evil -cf evil.tar .',
      );
      const name = `guest-file-${randomUUID()}`;
      const guest: GuestData = {
        cloudInit: { metaData: '', userData: null, vendorData: null, networkConfig: null },
        configDrive: null,
        files: [`/out/${name}`, `/up/${name}`].map((path) => ({ path, content: Buffer.from('x') })),
        rootKey: null,
      };
      const spec = specOf(() => createReadStream(file('evil.tar')));

      await driver.spawn(spec, { network: async () => [], guest: async () => guest }, signal()).catch(() => undefined);
      await driver.destroy(spec.uuid, signal());

      await expect(access(join('/', name))).rejects.toThrow('ENOENT');
      await expect(access(join('/tmp', name))).rejects.toThrow('ENOENT');
    });

    it('gives the whole console log every time, though a server may forget what it has told', async () => {
      const spec = specOf(() => createReadStream(file('root.tar.gz')));
      await driver.spawn(spec, { network: async () => [] }, signal());
      const log = async (): Promise<string> =>
        Buffer.from(await driver.consoleLog(spec.uuid, 10_000, signal())).toString();
      const first = await poll(async () => ((await log()).includes('tick 1') ? log() : undefined), 100, signal());

      const later = await poll(async () => ((await log()).includes('tick 3') ? log() : undefined), 100, signal());
      await driver.powerOff(spec.uuid, { graceSeconds: 0 }, signal());
      const stopped = await log();
      await driver.destroy(spec.uuid, signal());

      expect(later.slice(0, first.length)).toBe(first);
      expect(later.match(/tick 1\b/g)).toHaveLength(1);
      expect(stopped).toContain(first);
    });

    it('goes on when the engine was killed and is back, and tells what happened meanwhile', async () => {
      const spec = specOf(() => createReadStream(file('root.tar.gz')));
      await driver.spawn(spec, { network: async () => [] }, signal());
      const events: LifecycleEvent[] = [];
      using _ = driver.onLifecycle((event) => events.push(event));
      const { pid } = await lxd.client.instances.state(spec.name);

      await lxd.restart();

      expect(await driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
      expect(await lxd.client.instances.state(spec.name)).toMatchObject({ pid });
      process.kill(pid, 'SIGKILL');
      const isStopped = ({ uuid, event }: LifecycleEvent): boolean => uuid === spec.uuid && event === 'stopped';
      await poll(() => (events.some(isStopped) ? true : undefined), 50, signal());
      await driver.powerOn(spec.uuid, [], signal());
      expect(await driver.powerState(spec.uuid, signal())).toBe(POWER_STATE.running);
      await driver.destroy(spec.uuid, signal());
    });

    it('refuses an image that is cut off, and keeps nothing of it', async () => {
      const whole = await readFile(file('root.tar.gz'));
      const spec = specOf(() => Readable.from([whole.subarray(0, whole.length - 20_000)]));
      const before = (await lxd.client.images.list()).length;

      await expect(driver.spawn(spec, { network: async () => [] }, signal())).rejects.toMatchObject({
        kind: 'invalid',
      });

      expect(await lxd.client.images.list()).toHaveLength(before);
      expect(await lxd.client.instances.find(spec.name)).toBeUndefined();
    });

    it('streams an image of any size with constant memory', async () => {
      const megabyte = randomBytes(1024 * 1024);
      async function* content(): AsyncGenerator<Buffer> {
        yield await readFile(file('root.tar.gz'));
        for (let sent = 0; sent < 600; sent += 1) yield megabyte;
      }
      const spec = specOf(() => Readable.from(content()));
      global.gc?.();
      const before = process.memoryUsage().rss;
      let peak = 0;
      const timer = setInterval(() => {
        peak = Math.max(peak, process.memoryUsage().rss);
      }, 20);

      await driver.spawn(spec, { network: async () => [] }, signal()).catch(() => undefined);
      clearInterval(timer);
      await driver.destroy(spec.uuid, signal());

      expect((peak - before) / 1024 / 1024).toBeLessThan(150);
    });
  });
}
