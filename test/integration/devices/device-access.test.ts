// Which devices a privileged container may open, whatever nodes it makes: by the device control group, or a program of the kernel in its
// place (version 2).
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../instances/daemon-support.ts';
import { HostileGuest } from '../instances/hostile-support.ts';
import { describeWith } from '../support.ts';

const NAME = 'access';
/** /dev/kmsg: every kernel has it, and containers are not given it. */
const KMSG = { major: '1', minor: '11' };

describeWith({ root: true, commands: ['lxc-start', 'busybox'] }, 'devices that a privileged container opens', () => {
  let daemon: TestDaemon;
  let guest: HostileGuest;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    await daemon.launch(NAME, { config: { 'security.privileged': 'true' } });
    await daemon.ready(NAME);
    guest = new HostileGuest(daemon, NAME);
    await guest.sh(
      'mkdir /root/dev; mknod /root/dev/null c 1 3; mknod /root/dev/kmsg c 1 11; mknod /root/dev/disk b 7 0',
    );
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  const opens = async (node: string): Promise<boolean> => {
    const { code } = await guest.sh(`test -e /root/dev/${node} || exit 0; exec 3</root/dev/${node}`);
    return code === 0;
  };
  const setDevices = async (devices: object): Promise<void> => {
    const before = (await daemon.call('GET', `/1.0/instances/${NAME}`)).metadata;
    await daemon.operate('PUT', `/1.0/instances/${NAME}`, { ...before, devices });
  };
  const kmsg = { k: { type: 'unix-char', path: '/dev/given', ...KMSG } };

  it('are those that it is given, though it may make nodes of others', async () => {
    expect(await opens('null')).toBe(true);
    expect(await opens('kmsg')).toBe(false);
    expect(await opens('disk')).toBe(false);
  });

  it('come and go while it runs', async () => {
    await setDevices(kmsg);
    expect(await opens('kmsg')).toBe(true);
    expect(await opens('disk')).toBe(false);

    await setDevices({});
    expect(await opens('kmsg')).toBe(false);
    expect(await opens('null')).toBe(true);
  });

  it('are the same after a start', async () => {
    await setDevices(kmsg);
    await daemon.operate('PUT', `/1.0/instances/${NAME}/state`, { action: 'restart', force: true });
    await daemon.ready(NAME, 2);

    expect(await opens('kmsg')).toBe(true);
    expect(await opens('disk')).toBe(false);
    await setDevices({});
    expect(await opens('kmsg')).toBe(false);
  });
});
