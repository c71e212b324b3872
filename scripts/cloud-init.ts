// npm run check:cloud-init: what guests are told, on a real cloud-init (root; a Debian root is made first, and kept).
import { installPackages, PACKAGES } from '../test/openstack/lab/packages.ts';
import { closingLine, runVitest } from './vitest-run.ts';

await installPackages([...PACKAGES.engine, ...PACKAGES.tests]);
const counts = await runVitest(['cloud-init'], { INTEGRATION: '1' });
console.log(closingLine(counts));
if (counts.failed > 0) process.exitCode = 1;
