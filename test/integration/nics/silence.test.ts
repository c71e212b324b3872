// Paused instances that are to answer nobody: a real ping of a frozen container, through all ways out of the pause.
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const HOST_END = 'ltquiet0';
const GUEST_IP = '10.95.0.2';
const NOTE = 'volatile.lighter.silent';

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip', 'nft'] }, 'a paused instance', () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    const eth0 = { type: 'nic', nictype: 'p2p', name: 'eth0', host_name: HOST_END };
    await daemon.launch('quiet', { config: { 'lighter.pause.silent': 'true' }, devices: { eth0 } });
    await daemon.ready('quiet');
    await address();
  });

  afterAll(() => daemon[Symbol.asyncDispose]());

  beforeEach(async () => {
    await patch('true');
    expect(await answers()).toBe(true);
  });

  const pid = async (): Promise<string> => String((await daemon.state('quiet')).pid);
  const inside = async (...argv: string[]) => run('nsenter', ['-t', await pid(), '-n', ...argv]);
  const tables = async () => (await inside('nft', 'list', 'tables')).stdout;
  const change = (action: string, options: object = {}) =>
    daemon.operate('PUT', '/1.0/instances/quiet/state', { action, timeout: 30, ...options });

  async function address(): Promise<void> {
    await run('ip', ['address', 'add', '10.95.0.1/24', 'dev', HOST_END]);
    await run('ip', ['link', 'set', HOST_END, 'up']);
    await inside('ip', 'address', 'add', `${GUEST_IP}/24`, 'dev', 'eth0');
    await inside('ip', 'link', 'set', 'eth0', 'up');
  }

  async function patch(silent: string): Promise<void> {
    await daemon.call('PATCH', '/1.0/instances/quiet', { config: { 'lighter.pause.silent': silent } });
  }

  async function answers(): Promise<boolean> {
    return run('busybox', ['ping', '-c', '2', '-W', '1', GUEST_IP]).then(
      () => true,
      () => false,
    );
  }

  async function note(): Promise<string | undefined> {
    return (await daemon.call('GET', '/1.0/instances/quiet')).metadata.config[NOTE];
  }

  async function expectAwake(): Promise<void> {
    expect(await answers()).toBe(true);
    expect(await note()).toBeUndefined();
    expect(await tables()).not.toContain('lighter_pause');
  }

  it('answers nobody until it goes on', async () => {
    await change('freeze');
    expect(await answers()).toBe(false);

    await change('unfreeze');

    await expectAwake();
  });

  it('answers as the host’s kernel does when that is not asked for', async () => {
    await patch('false');

    await change('freeze');
    expect(await answers()).toBe(true);
    await change('unfreeze');
  });

  it('goes on although it is not to be silent any more', async () => {
    await change('freeze');
    await patch('false');

    await change('unfreeze');

    await expectAwake();
  });

  it('stays silent while the daemon is dead, and goes on with the next one', async () => {
    await change('freeze');

    await daemon.kill();
    expect(await answers()).toBe(false);
    await daemon.boot();
    expect(await answers()).toBe(false);
    await change('unfreeze');

    await expectAwake();
  });

  it.each([{ force: true }, { force: false }])('is a plain one after a stop with %j', async (options) => {
    await change('freeze');

    await change('stop', options);
    expect(await note()).toBeUndefined();
    await change('start');
    await address();

    await expectAwake();
  });
});
