// Whether CRIU can freeze processes to disk here.
import { CommandError } from '../command-error.ts';
import type { Finding } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';
import { findProgram } from './tools.ts';

const LIMIT_MS = 20_000;

export async function examineCheckpoints(host: Host, signal: AbortSignal): Promise<Finding> {
  const program = await findProgram(host, 'criu');
  const common = { area: 'checkpoints', what: 'criu' } as const;
  // stateful snapshots and live migration are not built yet: nothing to do for anybody
  if (program === undefined)
    return { ...common, state: 'ok', found: 'not installed (nothing uses it yet)', advice: '' };
  try {
    await host.run([program, 'check'], { signal, timeoutMs: LIMIT_MS });
    return { ...common, state: 'ok', found: 'works with this kernel (nothing uses it yet)', advice: '' };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return { ...common, state: 'ok', found: 'does not work with this kernel (nothing uses it yet)', advice: '' };
  }
}
