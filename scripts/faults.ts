// npm run check:faults: a daemon killed at every step of every storage operation, on each driver (root; hours). FAULT_DRIVER and
// FAULT_ONLY choose a part, FAULT_STEPS=kinds takes each kind of step once, FAULT_LOG names a file for what is found on the way.
import { installPackages, PACKAGES } from '../test/openstack/lab/packages.ts';
import { closingLine, runVitest } from './vitest-run.ts';

await installPackages([...PACKAGES.engine, ...PACKAGES.tests]);
const counts = await runVitest(
  ['integration'],
  { INTEGRATION: '1', FAULT_STEPS: process.env['FAULT_STEPS'] ?? 'all' },
  ['test/integration/storage/faults'],
);
console.log(closingLine(counts));
if (counts.failed > 0) process.exitCode = 1;
