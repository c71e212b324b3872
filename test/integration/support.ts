// Guards of the integration tests: being root with the tools installed is not consent.
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'vitest';

export interface Needs {
  readonly root?: boolean;
  /** Programs that must be in PATH. */
  readonly commands?: readonly string[];
}

function missing({ root = false, commands = [] }: Needs): string[] {
  const lacks = commands.filter((command) => !isInPath(command));
  return root && process.getuid?.() !== 0 ? ['root', ...lacks] : lacks;
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
  const lacks = missing(needs);
  const wanted = process.env['INTEGRATION'] === '1';
  if (wanted && lacks.length > 0 && process.env['REQUIRE_INTEGRATION'] === '1') {
    describe(name, () => {
      it('has what it needs', () => {
        throw new Error(`missing: ${lacks.join(', ')}`);
      });
    });
    return;
  }
  describe.skipIf(!wanted || lacks.length > 0)(name, suite);
}
