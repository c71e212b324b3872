// npm run fix: what the tools can mend by themselves.
import { runTools } from './tool.ts';

const good = await runTools([
  { name: 'lint', argv: ['oxlint', '--type-aware', '--fix', '--quiet'] },
  { name: 'format', argv: ['biome', 'format', '--write'] },
  { name: 'generated files', argv: ['node', 'scripts/generate.ts'] },
]);
if (!good) process.exitCode = 1;
