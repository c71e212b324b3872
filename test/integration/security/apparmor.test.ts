// AppArmor: the profile that a container gets, what it keeps root of the container from, and the ways to have more or less of it.
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { HostileGuest, type Outcome } from '../instances/hostile-support.ts';
import { describeWith, onKernelsWith } from '../support.ts';

const PROFILES = '/sys/kernel/security/apparmor/profiles';

function isEnabled(): boolean {
  try {
    return readFileSync('/sys/module/apparmor/parameters/enabled', 'utf8').trim() === 'Y';
  } catch {
    return false;
  }
}

/** Exit codes of what the profile may refuse. */
const ATTEMPTS = {
  'another proc': 'mkdir -p /tmp/p && mount -t proc proc /tmp/p && umount /tmp/p',
  'a setting of the user namespace': 'echo 1000 >/proc/sys/user/max_inotify_instances',
  'a file that is named': 'cat /root/one',
} as const;

describeWith({ root: true, commands: ['lxc-start', 'busybox'] }, 'AppArmor', () => {
  const test = it.runIf(onKernelsWith(isEnabled()));
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  async function launch(name: string, config: Readonly<Record<string, string>> = {}): Promise<HostileGuest> {
    await daemon.launch(name, { config });
    await daemon.ready(name);
    return new HostileGuest(daemon, name);
  }

  const loaded = async (name: string): Promise<readonly string[]> => {
    const lines = (await readFile(PROFILES, 'utf8')).split('\n');
    return lines.filter((line) => line.includes(`lxc-${name}_`));
  };

  async function attempt(guest: HostileGuest, name: keyof typeof ATTEMPTS): Promise<boolean> {
    const outcome: Outcome = await guest.sh(ATTEMPTS[name]);
    return outcome.code === 0;
  }

  async function remove(name: string): Promise<void> {
    await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
    await daemon.operate('DELETE', `/1.0/instances/${name}`);
  }

  test('confines init and commands by a profile of their own, which goes with the container', async () => {
    const guest = await launch('aa1');
    const { pid } = await daemon.state('aa1');
    const running = guest.sh('sleep 5');
    const confined = async (): Promise<readonly string[] | undefined> => {
      const inside = (await readFile(`/sys/fs/cgroup/lxc.payload.aa1/cgroup.procs`, 'utf8')).trim().split('\n');
      const labels = inside.map((one) => readFileSync(`/proc/${one}/attr/current`, 'utf8').trim());
      return labels.length > 1 ? labels : undefined;
    };

    expect(await loaded('aa1')).not.toEqual([]);
    expect(await readFile(`/proc/${pid}/attr/current`, 'utf8')).toMatch(/^lxc-aa1_.*\(enforce\)/);
    for (const label of await poll(confined, 50, AbortSignal.timeout(20_000))) {
      expect(label).toMatch(/^lxc-aa1_.*\(enforce\)/);
    }
    await running;
    await remove('aa1');
    expect(await loaded('aa1')).toEqual([]);
  });

  test('keeps root of the container from what its user namespace would let it do', async () => {
    const guest = await launch('aa2');

    expect(await attempt(guest, 'another proc')).toBe(false);
    expect(await attempt(guest, 'a setting of the user namespace')).toBe(false);
    await remove('aa2');
  });

  // With nesting, liblxc leaves settings to the user namespace as well.
  test('lets go what nesting needs, and is still there', async () => {
    const guest = await launch('aa3', { 'security.nesting': 'true' });
    const { pid } = await daemon.state('aa3');

    expect(await attempt(guest, 'another proc')).toBe(true);
    expect(await readFile(`/proc/${pid}/attr/current`, 'utf8')).toMatch(/^lxc-aa3_.*\(enforce\)/);
    await remove('aa3');
  });

  test('is not there where raw.lxc says so', async () => {
    const guest = await launch('aa4', { 'raw.lxc': 'lxc.apparmor.profile = unconfined' });
    const { pid } = await daemon.state('aa4');

    expect((await readFile(`/proc/${pid}/attr/current`, 'utf8')).trim()).toBe('unconfined');
    expect(await attempt(guest, 'another proc')).toBe(true);
    expect(await attempt(guest, 'a setting of the user namespace')).toBe(true);
    await remove('aa4');
  });

  test('has the rules of raw.apparmor at the next start, and refuses what is no rule', async () => {
    const guest = await launch('aa5');
    await guest.sh('echo 1 >/root/one');
    expect(await attempt(guest, 'a file that is named')).toBe(true);
    const set = (rules: string) => daemon.call('PATCH', '/1.0/instances/aa5', { config: { 'raw.apparmor': rules } });
    expect((await set('deny /root/one r,')).error).toBe('');

    await daemon.operate('PUT', '/1.0/instances/aa5/state', { action: 'restart', force: true });
    await daemon.ready('aa5', 2);

    expect(await attempt(guest, 'a file that is named')).toBe(false);
    await daemon.operate('PUT', '/1.0/instances/aa5/state', { action: 'stop', force: true });
    await set('this is no rule');
    await expect(daemon.operate('PUT', '/1.0/instances/aa5/state', { action: 'start' })).rejects.toThrow(
      'Invalid raw.apparmor',
    );
    expect(await loaded('aa5')).toEqual([]);
  });
});
