// npm run tempest: Debian's Tempest against the lab.
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Cloud } from '../lab/cloud.ts';
import { run, SYSTEM_ENV } from '../lab/commands.ts';
import { CINDER } from '../lab/cinder.ts';
import { PHYSICAL_NETWORKS } from '../lab/configuration.ts';
import { L3_AGENT } from '../lab/control-plane.ts';
import { installPackages, PACKAGES } from '../lab/packages.ts';
import { Processes } from '../lab/processes.ts';
import { say } from '../lab/progress.ts';
import { ensureImage, EXTERNAL, EXTERNAL_NETWORK } from '../lab/resources.ts';
import { services } from '../lab/first-server.ts';
import { defaultPaths, type LabPaths } from '../lab/settings.ts';
import { makeGuest } from './guest.ts';
import { type Result, resultOf, table } from './results.ts';
import { LARGER_FLAVOR, tempestConfiguration, TEMPEST_FLAVOR } from './settings.ts';

const USAGE = `usage: npm run tempest [-- REGEX…]

Runs the tests whose names match (default: tempest.api.compute and tempest.scenario) against the lab that npm run up has made;
with those of volumes, routers and moves when it was npm run up -- --volumes --routers --second-host. Configuration, log and results: $LIGHTERVISOR_LAB/data/tempest.`;

const DEFAULT = ['^tempest\\.(api\\.compute|scenario)\\.'];
/** The gateways' addresses in the lab's networks, on the host's ends of what stands for the physical ones. */
const HOST_ADDRESSES = [
  ['10.77.0.1/24', PHYSICAL_NETWORKS.physnet1.host],
  [`${EXTERNAL.gateway}/24`, PHYSICAL_NETWORKS.physext.host],
] as const;

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
  const hosts = (await services(cloud)).filter(({ binary, state }) => binary === 'nova-compute' && state === 'up');
  const text = tempestConfiguration({
    folder,
    image,
    tarball,
    otherImage,
    flavor: flavor(TEMPEST_FLAVOR),
    largerFlavor: flavor(LARGER_FLAVOR),
    computes: hosts.length,
    externalNetwork: processes.pid(L3_AGENT) === undefined ? undefined : await externalNetwork(cloud),
    hasVolumes: CINDER.every((service) => processes.pid(service) !== undefined),
  });
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

async function externalNetwork(cloud: Cloud): Promise<string | undefined> {
  type Networks = { readonly networks: readonly { readonly id: string }[] };
  const { networks } = await cloud.get<Networks>(cloud.network, `/v2.0/networks?name=${EXTERNAL_NETWORK}`);
  return networks[0]?.id;
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
  for (const [address, nic] of HOST_ADDRESSES) await run(['ip', 'address', 'replace', address, 'dev', nic]);
  try {
    const results = await runTests(folder, file, expressions.length > 0 ? expressions : DEFAULT);
    console.log(`\n${table(results)}`);
    if (results.length === 0 || results.some(({ outcome }) => outcome === 'failed')) process.exitCode = 1;
  } finally {
    for (const [address, nic] of HOST_ADDRESSES) await run(['ip', 'address', 'delete', address, 'dev', nic]);
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
