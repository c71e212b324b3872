// Why the state of a running container is not kept: the host's own words.
import { expect, it } from 'vitest';
import { refuseStateful } from '#src/engine/instances/criu.ts';
import { CommandError } from '#src/host/command-error.ts';
import type { Argv, RunResult } from '#src/host/host.ts';

const doing = 'Unable to create a stateful snapshot';
const hostThat = (run: (argv: Argv) => RunResult) => ({ run: async (argv: Argv) => run(argv) });
const refusal = (run: (argv: Argv) => RunResult) => refuseStateful(hostThat(run), doing, AbortSignal.timeout(1000));

it('is that CRIU is not there', async () => {
  const missing = Object.assign(new Error('spawn criu ENOENT'), { code: 'ENOENT' });

  const refused = refusal((argv) => {
    throw new CommandError(argv, { exitCode: null, stderr: '', cause: missing });
  });

  await expect(refused).rejects.toThrow("Unable to create a stateful snapshot. CRIU isn't installed");
});

it('is what its check said last', async () => {
  const stderr =
    'Warn  (a)\nfirst\nError (cr-check.c:1): no TUN support\nError (b): CLONE_PARENT\nDoes not look good.\n';

  const refused = refusal((argv) => {
    throw new CommandError(argv, { exitCode: 1, stderr });
  });

  await expect(refused).rejects.toThrow(
    'CRIU does not work on this host: Error (cr-check.c:1): no TUN support; Error (b): CLONE_PARENT; Does not look good.',
  );
});

it('is this server’s own where CRIU works', async () => {
  const refused = refusal(() => ({ stdout: 'Looks good.', stderr: '', exitCode: 0 }));

  await expect(refused).rejects.toThrow('This server does not keep the state of running instances');
});
