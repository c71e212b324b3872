// npm test: everything. Installs what is missing, then unit, contract, integration, and the real OpenStack end to end.
import { installPackages, PACKAGES } from '../test/openstack/lab/packages.ts';
import { Processes } from '../test/openstack/lab/processes.ts';
import { defaultPaths } from '../test/openstack/lab/settings.ts';
import { runTool } from './tool.ts';
import { closingLine, type Counts, NONE, runIntegration, runVitest, sum } from './vitest-run.ts';

const BEGIN_MS = Date.now();

/** The rest of the minutes is for the end-to-end tests. */
const BEFORE_END_TO_END = 0.6;

/** With LIGHTERVISOR_TEST_MINUTES the run ends in time on a slow machine as well: no file of tests is begun after this part of it. */
function deadline(part: number): Readonly<Record<string, string>> {
  const minutes = process.env['LIGHTERVISOR_TEST_MINUTES'];
  if (minutes === undefined) return {};
  if (!(Number(minutes) > 0)) throw new Error('LIGHTERVISOR_TEST_MINUTES must be a number of minutes');
  return { LIGHTERVISOR_DEADLINE: String(BEGIN_MS + Number(minutes) * 60_000 * part) };
}

async function endToEnd(): Promise<Counts> {
  const wasUp = new Processes(defaultPaths()).pid('nova-api') !== undefined;
  try {
    if ((await runTool({ name: 'npm run up', argv: ['node', 'test/openstack/up.ts'] })) !== 0) {
      return { ...NONE, failed: 1 };
    }
    return await runVitest(['openstack'], { INTEGRATION: '1', ...deadline(1) });
  } finally {
    if (!wasUp) await runTool({ name: 'npm run down', argv: ['node', 'test/openstack/down.ts'] });
  }
}

async function main(): Promise<void> {
  let counts = await runVitest(['unit', 'contract']);
  if (process.getuid?.() === 0) {
    await installPackages([...PACKAGES.engine, ...PACKAGES.controlPlane, ...PACKAGES.tests]);
    counts = sum(
      counts,
      await runIntegration({ INTEGRATION: '1', REQUIRE_INTEGRATION: '1', ...deadline(BEFORE_END_TO_END) }),
    );
    counts = sum(counts, await endToEnd());
  } else {
    console.error('not root: the integration and end-to-end tests need root and are counted as one failure');
    counts = sum(counts, { ...NONE, failed: 1 });
  }
  console.log(closingLine(counts));
  if (counts.failed > 0) process.exitCode = 1;
}

await main();
