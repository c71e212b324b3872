// npm run check:integration: the tests that use real tools on this machine (root).
import { installPackages, PACKAGES } from '../test/openstack/lab/packages.ts';
import { closingLine, runIntegration } from './vitest-run.ts';

await installPackages([...PACKAGES.engine, ...PACKAGES.tests]);
const counts = await runIntegration({ INTEGRATION: '1' });
console.log(closingLine(counts));
if (counts.failed > 0) process.exitCode = 1;
