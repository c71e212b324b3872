// Runs vitest projects and counts what passed, failed and was skipped.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runTool } from './tool.ts';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export const NONE: Counts = { passed: 0, failed: 0, skipped: 0 };

export function sum(a: Counts, b: Counts): Counts {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numFailedTestSuites: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
}

/** Of a run that wrote its report to `file` and ended with `code`. */
export function countsOf(file: string, code: number): Counts {
  if (!existsSync(file)) return { ...NONE, failed: 1 };
  const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
  const failed = Math.max(report.numFailedTests, code === 0 ? 0 : 1);
  return { passed: report.numPassedTests, failed, skipped: report.numPendingTests + report.numTodoTests };
}

/** A run that ends badly without a failed test (a suite that could not start, a crash) counts as one failure. */
export async function runVitest(
  projects: readonly string[],
  env: Readonly<Record<string, string>> = {},
  filters: readonly string[] = [],
): Promise<Counts> {
  const scratch = mkdtempSync(join(tmpdir(), 'lightervisor-report-'));
  const file = join(scratch, 'report.json');
  try {
    const code = await runTool({
      name: `${projects.join(' and ')} tests`,
      argv: [
        'vitest',
        'run',
        ...projects.flatMap((project) => ['--project', project]),
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${file}`,
        ...filters,
      ],
      env,
    });
    return countsOf(file, code);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** All that use real tools on this machine: those of messages beside those of the engine, one file of each at a time. */
export async function runIntegration(env: Readonly<Record<string, string>>): Promise<Counts> {
  const [engine, wire] = await Promise.all([runVitest(['integration'], env), runVitest(['wire'], env)]);
  return sum(engine, wire);
}

export function closingLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
