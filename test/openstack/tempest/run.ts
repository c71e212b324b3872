// npm run tempest: Debian's Tempest against the lab.
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Cloud } from '../lab/cloud.ts';
import { run, SYSTEM_ENV } from '../lab/commands.ts';
import { CINDER } from '../lab/cinder.ts';
import { installPackages, PACKAGES } from '../lab/packages.ts';
import { Processes } from '../lab/processes.ts';
import { say } from '../lab/progress.ts';
import { ensureImage } from '../lab/resources.ts';
import { defaultPaths, type LabPaths } from '../lab/settings.ts';
import { makeGuest } from './guest.ts';
import { type Result, resultOf, table } from './results.ts';
import { LARGER_FLAVOR, tempestConfiguration, TEMPEST_FLAVOR } from './settings.ts';

const USAGE = `usage: npm run tempest [-- REGEX…]

Runs the tests whose names match (default: tempest.api.compute and tempest.scenario) against the lab that npm run up has made;
with those of volumes when it was npm run up -- --volumes. Configuration, log and results: $LIGHTERVISOR_LAB/data/tempest.`;

const DEFAULT = ['^tempest\\.(api\\.compute|scenario)\\.'];
/** The host's end of what stands for the physical network, and the gateway's address in the lab's network. */
const HOST_NIC = 'labphys1';
const HOST_ADDRESS = '10.77.0.1/24';

async function writeFiles(paths: LabPaths, folder: string): Promise<string> {
  mkdirSync(join(folder, 'lock'), { recursive: true });
  const cloud = new Cloud();
  const tarball = join(folder, 'guest.tar.gz');
  const name = await makeGuest(tarball);
  const image = await ensureImage(cloud, name, tarball);
  const otherImage = await ensureImage(cloud, `${name}-alt`, tarball);
  const { flavors } = await cloud.get<{ flavors: readonly { id: string; name: string }[] }>(cloud.compute, '/flavors');
  const flavor = (wanted: string) => flavors.find((one) => one.name === wanted)?.id ?? '';
  const file = join(folder, 'tempest.conf');
  const processes = new Processes(paths);
  const text = tempestConfiguration({
    folder,
    image,
    otherImage,
    flavor: flavor(TEMPEST_FLAVOR),
    largerFlavor: flavor(LARGER_FLAVOR),
    computes: 1,
    hasVolumes: CINDER.every((service) => processes.pid(service) !== undefined),
  });
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

async function runTests(folder: string, file: string, expressions: readonly string[]): Promise<readonly Result[]> {
  const results: Result[] = [];
  const argv = ['run', '--config-file', file, '--concurrency', '2', '--regex', expressions.join('|')];
  const exclusions = ['--exclude-list', join(import.meta.dirname, 'exclusions.txt')];
  const child = spawn('tempest', [...argv, ...exclusions], {
    cwd: folder,
    env: { ...SYSTEM_ENV, PYTHON: 'python3' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const end = (signal: NodeJS.Signals) => child.kill(signal);
  process.once('SIGINT', end).once('SIGTERM', end);
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    const result = resultOf(line);
    if (result) results.push(result);
  }
  return results;
}

async function main(expressions: readonly string[]): Promise<void> {
  const paths = defaultPaths();
  const folder = join(paths.data, 'tempest');
  await installPackages(PACKAGES.tempest);
  const file = await writeFiles(paths, folder);
  await run(['ip', 'address', 'replace', HOST_ADDRESS, 'dev', HOST_NIC]);
  try {
    const results = await runTests(folder, file, expressions.length > 0 ? expressions : DEFAULT);
    console.log(`\n${table(results)}`);
    if (results.length === 0 || results.some(({ outcome }) => outcome === 'failed')) process.exitCode = 1;
  } finally {
    await run(['ip', 'address', 'delete', HOST_ADDRESS, 'dev', HOST_NIC]);
  }
}

const args = process.argv.slice(2);
if (args.some((arg) => arg === '--help' || arg === '-h')) {
  console.log(USAGE);
} else {
  try {
    await main(args);
  } catch (error) {
    say(`failed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
