// Guards of the integration tests: being root with the tools installed is not consent.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'vitest';

export interface Needs {
  readonly root?: boolean;
  /** Programs that must be in PATH. */
  readonly commands?: readonly string[];
  /** Programs that a machine may be without: then these are skipped, wherever they are wanted. */
  readonly extras?: readonly string[];
  /** The same of the kernel; with REQUIRE_KERNEL=1, on a machine whose kernel was chosen for the tests, it is a failure. */
  readonly deviceMapper?: boolean;
  /** Gives what else the machine lacks, for which the tests are skipped wherever they are wanted. */
  readonly lacks?: () => string | undefined;
}

const isSet = (name: string): boolean => process.env[name] === '1';

/** OpenZFS; else zfs is zfs-fuse, which keeps no attributes and maps no ids. */
export const hasKernelZfs = existsSync('/sys/module/zfs');

/** For it.runIf: where the kernel was chosen for the tests, they run whatever it seems to lack. */
export function onKernelsWith(has: boolean): boolean {
  return has || isSet('REQUIRE_KERNEL');
}

function hasDeviceMapper(): boolean {
  spawnSync('modprobe', ['dm_thin_pool'], { stdio: 'ignore' });
  return readFileSync('/proc/misc', 'utf8').includes('device-mapper');
}

/** What it can do without is only told. */
function missing({ root = false, commands = [], extras = [], deviceMapper = false, lacks }: Needs) {
  const kernel = deviceMapper && !hasDeviceMapper() ? ['device mapper in the kernel'] : [];
  const [needed, optional] = isSet('REQUIRE_KERNEL') ? [kernel, []] : [[], kernel];
  const isAbsent = (command: string): boolean => !isInPath(command);
  return {
    needed: [...(root && process.getuid?.() !== 0 ? ['root'] : []), ...needed, ...commands.filter(isAbsent)],
    optional: [...optional, ...extras.filter(isAbsent), ...[lacks?.() ?? []].flat()],
  };
}

function isInPath(command: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Runs only with INTEGRATION=1 and everything there; with REQUIRE_INTEGRATION=1 what is missing is a failure. */
export function describeWith(needs: Needs, name: string, suite: () => void): void {
  if (!isSet('INTEGRATION')) return void describe.skip(name, suite);
  const { needed, optional } = missing(needs);
  if (optional.length === 0 && needed.length > 0 && isSet('REQUIRE_INTEGRATION')) {
    describe(name, () => {
      it('has what it needs', () => {
        throw new Error(`missing: ${needed.join(', ')}`);
      });
    });
    return;
  }
  const lacks = [...needed, ...optional];
  const why = lacks.length > 0 ? ` (without ${lacks.join(', ')})` : '';
  describe.skipIf(lacks.length > 0)(`${name}${why}`, suite);
}
