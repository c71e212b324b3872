// Whether CRIU can keep the state of processes on disk here.
import { CommandError } from '../command-error.ts';
import type { Finding } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';
import { hasAppArmor } from './kernel.ts';
import { findProgram } from './tools.ts';

const LIMIT_MS = 20_000;
const WITHOUT = 'needed for stateful stops and snapshots';
const UNDER_APPARMOR =
  'stateful stops and snapshots are refused: liblxc cannot restore containers under AppArmor (boot with apparmor=0)';
const OTHER = 'a newer one, outside of PATH, is named by the server setting lighter.criu.path';

/** `named`: by the server's configuration; '' is the one in PATH. */
export async function examineCheckpoints(host: Host, named: string, signal: AbortSignal): Promise<Finding> {
  const common = { area: 'checkpoints', what: 'criu' } as const;
  const program = named === '' ? await findProgram(host, 'criu') : await existing(host, named);
  if (program === undefined) {
    const found = named === '' ? 'not installed' : `not at ${named}`;
    return { ...common, state: 'note', found, advice: `apt install criu: ${WITHOUT}; ${OTHER}` };
  }
  try {
    await host.run([program, 'check'], { signal, timeoutMs: LIMIT_MS });
    if (!(await hasAppArmor(host))) {
      return { ...common, state: 'ok', found: `${program} works with this kernel`, advice: '' };
    }
    const found = `${program} works with this kernel, but AppArmor is on`;
    return { ...common, state: 'note', found, advice: UNDER_APPARMOR };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const found = `${program} does not work with this kernel`;
    return { ...common, state: 'note', found, advice: `${WITHOUT}; ${OTHER}` };
  }
}

async function existing(host: Host, path: string): Promise<string | undefined> {
  return (await host.exists(path)) ? path : undefined;
}
