// A CRIU for the tests: the one that LIGHTER_TEST_CRIU names, or the one in PATH, if it works with this kernel.
import { spawnSync } from 'node:child_process';

const NAMED = process.env['LIGHTER_TEST_CRIU'] ?? '';

/** For the server's configuration; '' is the one in PATH. */
export const criuPath = NAMED;

/** Undefined: it works. */
export function whyNoCriu(): string | undefined {
  const program = NAMED === '' ? 'criu' : NAMED;
  const { error, status, stderr } = spawnSync(program, ['check'], { encoding: 'utf8', timeout: 30_000 });
  if (error) return `no ${program} (LIGHTER_TEST_CRIU names one)`;
  if (status === 0) return undefined;
  return `${program} does not work on this host: ${stderr.trim().split('\n').at(-1) ?? ''}`;
}
