// What Tempest's runner printed, as a table.

export interface Result {
  readonly test: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Why it was skipped. */
  readonly reason: string;
}

const OUTCOMES = { ok: 'passed', FAILED: 'failed', SKIPPED: 'skipped' } as const;
const LINE = /^\{\d+\} (?<test>\S.*?) (?:\[[\d.]+s\] )?\.\.\. (?<word>ok|FAILED|SKIPPED)(?:: (?<reason>.*))?$/;

/** One line of a test; undefined for all others. */
export function resultOf(line: string): Result | undefined {
  const { test = '', word = '', reason = '' } = LINE.exec(line)?.groups ?? {};
  const outcome = OUTCOMES[word as keyof typeof OUTCOMES];
  return outcome && { test: test.replace(/\[.*\]$/, ''), outcome, reason };
}

/** Tests are counted by the module that they are in. */
function moduleOf({ test }: Result): string {
  const parts = test.replace(/^setUpClass \((.*)\)$/, '$1').split('.');
  const end = parts.findIndex((part) => /^[A-Z]/.test(part));
  return parts.slice(0, end === -1 ? 4 : Math.min(end, 4)).join('.');
}

export function table(results: readonly Result[]): string {
  const modules = Map.groupBy(results, moduleOf);
  const rows = [...modules].toSorted(([one], [other]) => one.localeCompare(other));
  const lines = rows.map(([name, inside]) => row(name, inside));
  const failed = results.filter(({ outcome }) => outcome === 'failed').map(({ test }) => `failed: ${test}`);
  return [row('', undefined), ...lines, row('all', results), ...reasons(results), ...failed].join('\n');
}

function row(name: string, results: readonly Result[] | undefined): string {
  const cells = (['passed', 'failed', 'skipped'] as const).map((outcome) =>
    String(results?.filter((result) => result.outcome === outcome).length ?? outcome).padStart(8),
  );
  return `${name.padEnd(40)}${cells.join('')}`;
}

function reasons(results: readonly Result[]): readonly string[] {
  const skipped = results.filter(({ outcome }) => outcome === 'skipped');
  const groups = Map.groupBy(skipped, ({ reason }) => reason);
  return [...groups].map(([reason, tests]) => `skipped: ${tests.length} × ${reason}`);
}
