// The state of running instances, kept by a real CRIU: stopped with it, started with it, in snapshots, and over crashes of the daemon.
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { whyNoCriu } from '../criu.ts';
import { describeWith } from '../support.ts';
import { TestDaemon } from './daemon-support.ts';
import { isOneCount, StatefulGuest, useCriu } from './stateful-support.ts';

const NAME = 'ste1';
const COPY = 'ste2';
const NETWORK = 'ltstate0';

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

const needs = { root: true, commands: ['lxc-checkpoint', 'busybox', 'zfs', 'zpool'], lacks: whyNoCriu };

describeWith(needs, 'stateful instances', () => {
  let daemon: TestDaemon;
  let guest: StatefulGuest;

  async function begin(driver: string): Promise<void> {
    daemon = await TestDaemon.start(driver);
    await daemon.addImage();
    await useCriu(daemon);
    const config = { 'ipv4.address': '10.213.1.1/24', 'ipv4.nat': 'false', 'ipv6.address': 'none' };
    await daemon.call('POST', '/1.0/networks', { name: NETWORK, type: 'bridge', config });
    const devices = { eth0: { type: 'nic', network: NETWORK, name: 'eth0' } };
    await daemon.launch(NAME, { devices, config: { 'limits.memory': '100MiB' } });
    guest = new StatefulGuest(daemon, NAME);
    await guest.begin();
  }

  async function end(): Promise<void> {
    await guest.state({ action: 'stop', force: true }).catch(() => undefined); // it may not run
    await daemon.operate('DELETE', `/1.0/instances/${NAME}`);
    await daemon.call('DELETE', `/1.0/networks/${NETWORK}`);
    await daemon[Symbol.asyncDispose]();
  }

  const stop = () => guest.state({ action: 'stop', stateful: true });
  const start = () => guest.state({ action: 'start', stateful: true });
  const statePath = () => join(daemon.root, 'instances', NAME, 'state');
  const snapshot = (name: string) => {
    return daemon.operate('POST', `/1.0/instances/${NAME}/snapshots`, { name, stateful: true });
  };
  const restore = (name: string) => {
    return daemon.operate('PUT', `/1.0/instances/${NAME}`, { restore: name, stateful: true });
  };

  describe('on overlays', () => {
    beforeAll(() => begin('overlay'));
    afterAll(() => end());

    it('go on after a stop where they were: memory, open files, connections', async () => {
      using echo = await guest.connect();
      echo.say('before');
      await echo.hears('before');
      const address = await guest.address();

      await stop();
      const stopped = await guest.record();
      const hasState = await exists(join(statePath(), 'inventory.img'));
      await start();
      const started = await guest.record();

      expect(stopped).toMatchObject({ status: 'Stopped', stateful: true });
      expect(hasState).toBe(true);
      expect(started).toMatchObject({ status: 'Running', stateful: false });
      expect(await exists(statePath())).toBe(false);
      expect(isOneCount(await guest.countsLater())).toBe(true);
      expect(await guest.address()).toBe(address);
      echo.say('after');
      await echo.hears('after');
      using another = await guest.connect();
      another.say('new');
      await another.hears('new');
    });

    it('run on when they cannot be saved, and CRIU says why', async () => {
      await guest.inside(
        'setsid sh -c "echo \\$\\$ >/run/unsaved; exec 5<>/dev/fuse; exec sleep 1000" </dev/null >/dev/null 2>&1 & sleep 0.3',
      );

      await expect(stop()).rejects.toThrow(/CRIU could not save the state of the instance: .*(?:chr|file)/u);

      expect(await guest.record()).toMatchObject({ status: 'Running', stateful: false });
      expect(isOneCount(await guest.countsLater())).toBe(true);
      await guest.inside('kill "$(cat /run/unsaved)"');
    });

    it('come back to a stateful snapshot as they ran then', async () => {
      await snapshot('s1');
      const then = (await guest.counts()).length;
      const later = await guest.countsLater();

      await restore('s1');
      const back = await guest.countsLater();

      expect(isOneCount(later)).toBe(true);
      expect(later.length).toBeGreaterThan(then);
      expect(isOneCount(back)).toBe(true);
      expect(await guest.record()).toMatchObject({ status: 'Running', stateful: false });
    });

    it('and their states survive a daemon that is killed in the middle', async () => {
      const ended = stop().catch(() => undefined); // its connection breaks
      await poll(
        () => exists(join(daemon.root, 'instances', NAME, 'dumping/dump.log')).then((is) => is || undefined),
        2,
        AbortSignal.timeout(20_000),
      );
      await daemon.kill();
      await ended;
      await daemon.boot();
      const { status, stateful } = await guest.record();
      if (status === 'Stopped') await start();

      expect(stateful).toBe(status === 'Stopped');
      expect(isOneCount(await guest.countsLater())).toBe(true);

      await stop();
      const restored = start().catch(() => undefined);
      await poll(
        () => exists(join(statePath(), 'restore.log')).then((is) => is || undefined),
        2,
        AbortSignal.timeout(20_000),
      );
      await daemon.kill();
      await restored;
      await daemon.boot();
      const again = await guest.record();
      if (again.status === 'Stopped') await start();

      expect(again.stateful).toBe(again.status === 'Stopped');
      expect(isOneCount(await guest.countsLater())).toBe(true);
    });

    it('reboot after they were restored', async () => {
      const since = daemon.events.length;
      process.kill((await daemon.state(NAME)).pid, 'SIGINT');
      await daemon.seen('instance-restarted', since);

      expect(await daemon.status(NAME)).toBe('Running');
    });

    it('say why they cannot be restored, keep their state, and start without', async () => {
      await guest.begin();
      await stop();
      await daemon.call('DELETE', `/1.0/instances/${NAME}/files?path=/root/count`);

      await expect(start()).rejects.toThrow(/root\/count.*The state of "ste1" is kept: start it stateless/u);

      expect(await guest.record()).toMatchObject({ status: 'Stopped', stateful: true });
      await guest.state({ action: 'start' });
      expect(await guest.record()).toMatchObject({ status: 'Running', stateful: false });
    });

    it('go on as a copy as well, which has an address and limits of its own', async () => {
      await guest.begin();
      await stop();
      const source = { type: 'copy', source: NAME };
      const config = { 'limits.memory': '120MiB' };
      await daemon.operate('POST', '/1.0/instances', { name: COPY, source, config, stateful: true });
      const copy = new StatefulGuest(daemon, COPY);

      await copy.state({ action: 'start', stateful: true });
      const { network, memory } = await daemon.state(COPY);
      const record = await copy.record();
      const goesOn = isOneCount(await copy.countsLater());
      const limit = (await daemon.call('GET', '/1.0/metrics')).text;
      await copy.state({ action: 'stop', force: true });
      await daemon.operate('DELETE', `/1.0/instances/${COPY}`);

      expect(goesOn).toBe(true);
      expect(memory.usage).toBeGreaterThan(0);
      expect(network.eth0.hwaddr).toBe(record.config['volatile.eth0.hwaddr']);
      expect(network.eth0.hwaddr).not.toBe((await guest.record()).config['volatile.eth0.hwaddr']);
      expect(limit).toMatch(/lxd_memory_MemTotal_bytes\{[^}]*name="ste2"[^}]*\} (?:125829120|1\.2582912e\+08)/u);
    });
  });

  describe.each(['dir', 'btrfs', 'zfs'])('on a pool of driver %s', (driver) => {
    beforeAll(() => begin(driver));
    afterAll(() => end());

    it('are stopped, started and brought back with their state', async () => {
      await stop();
      await start();
      await snapshot('s1');
      await guest.countsLater();
      await restore('s1');

      expect(isOneCount(await guest.countsLater())).toBe(true);
    });
  });
});
