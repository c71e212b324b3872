// Runs vitest projects and counts what passed, failed and was skipped.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { ROOT, runTool } from './tool.ts';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What failed, and why: a few lines each. */
  readonly failures: readonly string[];
}

export const NONE: Counts = { passed: 0, failed: 0, skipped: 0, failures: [] };

export function sum(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
    failures: [...a.failures, ...b.failures],
  };
}

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[] | null;
    }[];
  }[];
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numFailedTestSuites: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
}

const REASON_LINES = 12;

function reason(text: string): string {
  const lines = stripVTControlCharacters(text)
    .split('\n')
    .filter((line) => !line.includes('/node_modules/'));
  return lines
    .slice(0, REASON_LINES)
    .map((line) => `    ${line.slice(0, 400)}`)
    .join('\n');
}

/** Each failed test, and each file that failed outside its tests. */
function failuresOf({ testResults }: Report): readonly string[] {
  return testResults.flatMap(({ name, message, assertionResults }) => [
    ...(message === '' ? [] : [`${relative(ROOT, name)}\n${reason(message)}`]),
    ...assertionResults
      .filter(({ status }) => status === 'failed')
      .map((test) => `${relative(ROOT, name)}: ${test.fullName}\n${reason((test.failureMessages ?? []).join('\n'))}`),
  ]);
}

/** Of a run that wrote its report to `file` and ended with `code`. */
export function countsOf(file: string, code: number): Counts {
  if (!existsSync(file)) return { ...NONE, failed: 1 };
  const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
  const failed = Math.max(report.numFailedTests, code === 0 ? 0 : 1);
  return {
    passed: report.numPassedTests,
    failed,
    skipped: report.numPendingTests + report.numTodoTests,
    failures: failuresOf(report),
  };
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

/** The line that counts; what failed stands before it, since the output of the tests themselves is long. */
export function closingLine({ passed, failed, skipped, failures }: Counts): string {
  return [
    ...failures.map((failure) => `FAILED ${failure}`),
    `${passed} passed, ${failed} failed, ${skipped} skipped`,
  ].join('\n');
}
