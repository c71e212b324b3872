// The directory by which mounts come into containers.
import { expect, it } from 'vitest';
import { SharedMounts } from '#drivers/runtime/lxc/shared-mounts.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const container = (name: string) => ({ name, configPath: '', logPath: '', consoleLogPath: '' });

it('is mounted once, however many containers start at once', async () => {
  const host = new FakeHost();
  const shared = new SharedMounts(host, '/lighter/shmounts');

  await Promise.all([shared.prepare(container('c1')), shared.prepare(container('c2'))]);

  expect(host.calls.filter((call) => call.startsWith('mount -t tmpfs'))).toHaveLength(1);
});
