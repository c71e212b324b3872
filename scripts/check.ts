// npm run check: types, lint, format, unit and contract tests, dead code, generated files. Two lanes, one per core.
import { runTools, type ToolRun } from './tool.ts';

const STATIC: readonly ToolRun[] = [
  { name: 'types', argv: ['tsc', '-p', '.'] },
  { name: 'lint', argv: ['oxlint', '--type-aware', '--quiet'] },
  { name: 'format', argv: ['biome', 'format'] },
  { name: 'dead code', argv: ['knip'] },
  { name: 'generated files', argv: ['node', 'scripts/generate.ts', '--check'] },
];
const TESTS: readonly ToolRun[] = [
  { name: 'unit and contract tests', argv: ['vitest', 'run', '--project', 'unit', '--project', 'contract'] },
];

const lanes = process.argv.includes('--static') ? [STATIC] : [STATIC, TESTS];
const results = await Promise.all(lanes.map((lane) => runTools(lane, { quiet: true })));
if (results.includes(false)) process.exitCode = 1;
