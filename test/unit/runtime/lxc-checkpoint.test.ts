// What the runtime says of CRIU: why it does not work here, and why it has failed.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkCriu, dump } from '#drivers/runtime/lxc/checkpoint.ts';
import { CommandError } from '#src/host/command-error.ts';
import type { Argv, Host, RunOptions, RunResult } from '#src/host/host.ts';
import { LinuxHost } from '#src/host/linux-host.ts';

const signal = () => AbortSignal.timeout(5000);
const checked = (criu: string, run: (argv: Argv) => RunResult) => {
  return checkCriu({ run: async (argv: Argv) => run(argv) }, criu, signal());
};

describe('the check of CRIU', () => {
  it.each([
    ['criu', "CRIU isn't installed"],
    ['/opt/criu/criu', 'There is no CRIU at /opt/criu/criu'],
  ])('by %s says that it is not there', async (criu, text) => {
    const missing = Object.assign(new Error('spawn criu ENOENT'), { code: 'ENOENT' });

    const refused = checked(criu, (argv) => {
      throw new CommandError(argv, { exitCode: null, stderr: '', cause: missing });
    });

    await expect(refused).rejects.toThrow(text);
  });

  it('says what CRIU said last', async () => {
    const stderr =
      'Warn  (a)\nfirst\nError (cr-check.c:1): no TUN support\nError (b): CLONE_PARENT\nDoes not look good.\n';

    const refused = checked('criu', (argv) => {
      throw new CommandError(argv, { exitCode: 1, stderr });
    });

    await expect(refused).rejects.toThrow(
      'CRIU does not work on this host: Error (cr-check.c:1): no TUN support; Error (b): CLONE_PARENT; Does not look good.',
    );
  });
});

it('a dump that fails says what CRIU complained of first, and its log stays with the logs of the instance', async () => {
  const root = await mkdtemp(join(tmpdir(), 'checkpoint-'));
  const directory = join(root, 'dumping');
  const seen: RunOptions[] = [];
  const real = new LinuxHost();
  const host = Object.create(real, {
    run: {
      value: async (argv: Argv, options: RunOptions) => {
        seen.push(options);
        const log = [
          "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted",
          '(00.1)     22: Error (criu/sk-inet.c:9): inet: Connected TCP socket',
          'Error (criu/cr-dump.c:1): Dumping FAILED.',
        ];
        await writeFile(join(directory, 'dump.log'), `${log.join('\n')}\n`);
        throw new CommandError(argv, { exitCode: 1, stderr: 'lxc-checkpoint: failed' });
      },
    },
  }) as Host;
  const container = { name: 'c1', configPath: '', logPath: join(root, 'lxc.log'), consoleLogPath: '' };
  const parts = { host, containersPath: root, sharedMounts: '/shm' };

  const failed = dump(parts, container, { directory, criu: '/opt/criu/criu', stop: true });

  await expect(failed).rejects.toThrow(
    /^CRIU could not save the state of the instance: \(criu\/sk-inet\.c:9\): inet: Connected TCP socket$/u,
  );
  expect(seen[0]?.env?.['PATH']).toMatch(/^\/opt\/criu:/u);
  expect((await real.list(root)).filter((name) => /^snapshot_dump_[\w.-]+\.log$/u.test(name))).toHaveLength(1);
  await rm(root, { recursive: true });
});
